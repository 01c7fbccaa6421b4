"""TFLite's standard metadata in a .tflite: what the model is and what it takes.

Two parts travel in the file. The `ModelMetadata` table (identifier M001, in the
buffer named TFLITE_METADATA) tells other programs, such as MediaPipe's
ImageClassifier, that the model takes raw RGB pixels and which class is which. A ZIP
archive behind the model holds `labels.txt` and `preprocessing.json`; the latter says
how to resize and crop, which the standard cannot express, and what the model gives if
that is no scores of classes. `anchors.npy` is there for raw boxes.
"""

import dataclasses
import io
import json
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import number_types

from keras_resnet.edge.convert import tflite_file
from keras_resnet.runner.detections import BOX_SCALES
from keras_resnet.runner.preprocessing import BOXES, FEATURES, MASKS, REDUCED_DECODING

BUFFER_NAME = b"TFLITE_METADATA"
IDENTIFIER = b"M001"
LABELS = "labels.txt"
PREPROCESSING = "preprocessing.json"
ANCHORS = "anchors.npy"
RUN_HASH = "TRAINING_RUN_SHA256"  # among the custom metadata, 32 bytes

# The tables of metadata_schema.fbs 1.5.0 that are needed: field:type, in the
# order of their slots. "<A|B>" is a union, whose type lies in the slot before it; "-"
# is not used here.
_SCHEMA = {
    "ModelMetadata": (
        "name:text description:text version:text subgraph_metadata:[SubGraphMetadata] "
        "author:text license:text associated_files:[AssociatedFile] "
        "min_parser_version:text"
    ),
    "SubGraphMetadata": (
        "name:text description:text input_tensor_metadata:[TensorMetadata] "
        "output_tensor_metadata:[TensorMetadata] associated_files:[AssociatedFile] "
        "input_process_units:- output_process_units:- input_tensor_groups:- "
        "output_tensor_groups:- custom_metadata:[CustomMetadata]"
    ),
    "TensorMetadata": (
        "name:text description:text dimension_names:- content:Content "
        "process_units:[ProcessUnit] stats:Stats associated_files:[AssociatedFile]"
    ),
    "Content": (
        "content_properties_type:byte "
        "content_properties:"
        "<FeatureProperties|ImageProperties|BoundingBoxProperties> range:-"
    ),
    "FeatureProperties": "",
    "ImageProperties": "color_space:byte default_size:ImageSize",
    "BoundingBoxProperties": "index:uints type:byte coordinate_type:byte",
    "ImageSize": "width:uint height:uint",
    "ProcessUnit": "options_type:byte options:<NormalizationOptions>",
    "NormalizationOptions": "mean:floats std:floats",
    "Stats": "max:floats min:floats",
    "AssociatedFile": "name:text description:text type:byte locale:text version:text",
    "CustomMetadata": "name:text data:bytes",
}
_FIELDS = {
    table: [field.split(":") for field in fields.split()]
    for table, fields in _SCHEMA.items()
}
_NUMBERS = {"byte": number_types.Uint8Flags, "uint": number_types.Uint32Flags}

# Enumerations of the schema.
_FEATURE, _IMAGE, _BOUNDING_BOX = 1, 2, 3  # ContentProperties
_BOUNDARIES = 1  # BoundingBoxType: the edges
_RATIO = 0  # CoordinateType: shares of the input
_NORMALIZATION = 1  # ProcessUnitOptions
_RGB = 1  # ColorSpaceType
_TENSOR_AXIS_LABELS, _TENSOR_VALUE_LABELS = 2, 3  # AssociatedFileType

_FEATURES = {"content_properties_type": _FEATURE, "content_properties": {}}
_FROM_0_TO_255 = {"max": [255.0], "min": [0.0]}
_POSTPROCESSED = "Of the boxes in the order of their scores: "
# What the metadata say of the outputs, by what a file gives. The labels belong to the
# one that is marked with the type of their file.
_OUTPUTS = {
    None: [
        {
            "name": "probability",
            "description": "Score of each class, 1/256 a step.",
            "stats": _FROM_0_TO_255,
            "labels": _TENSOR_AXIS_LABELS,
        }
    ],
    FEATURES: [{"name": "features", "description": "Pooled features of the image."}],
    MASKS: [
        {
            "name": "segmentation masks",
            "description": "Score of each class for each pixel, 1/256 a step.",
            "stats": _FROM_0_TO_255,
            "labels": _TENSOR_AXIS_LABELS,
        }
    ],
    "raw boxes": [
        {
            "name": "boxes",
            "description": f"Offsets to the anchors of {ANCHORS}: y, x, h, w, times "
            f"{', '.join(f'{scale:g}' for scale in BOX_SCALES)}.",
        },
        {
            "name": "scores",
            "description": "Score of each class for each anchor.",
            "labels": _TENSOR_AXIS_LABELS,
        },
    ],
    # By these names and in this order MediaPipe's ObjectDetector knows them.
    BOXES: [
        {
            "name": "location",
            "description": _POSTPROCESSED + "top, left, bottom, right.",
            "content": {
                "content_properties_type": _BOUNDING_BOX,
                "content_properties": {
                    "index": [1, 0, 3, 2],  # where left, top, right, bottom are
                    "type": _BOUNDARIES,
                    "coordinate_type": _RATIO,
                },
            },
        },
        {
            "name": "category",
            "description": _POSTPROCESSED + "the number of the class.",
            "labels": _TENSOR_VALUE_LABELS,
        },
        {"name": "score", "description": _POSTPROCESSED + "the score."},
        {"name": "number of detections", "description": "How many boxes there are."},
    ],
}


@dataclasses.dataclass(frozen=True)
class About:
    """What a file tells people about its model; a field that is None is left out."""

    name: str  # of the model
    author: str | None = None  # person or organization
    license: str | None = None  # name or text of the licence
    # SHA-256 of the trained `model.keras`, or of the folder that qat.py made of it (see
    # `files.sha256`), in hexadecimal.
    run_sha256: str | None = None


def with_metadata(
    content, labels, preprocessing, about, threshold=None, gives=None, anchors=None
):
    """Writes the table and the archive into a .tflite, in place of those that it has.

    The bytes returned are a .tflite and a ZIP archive at once. Equal arguments give
    equal bytes.

    Args:
        content: bytes of the file.
        labels: names of the classes, or None for no labels.txt.
        preprocessing: `Preprocessing`.
        about: `About`.
        threshold: if an image may have several labels, it has those whose score reaches
            this; else None.
        gives: what the outputs are, one of `runner.preprocessing.OUTPUTS`, or None for
            the scores of classes.
        anchors: of a detector that gives raw boxes and scores, float32 (anchors, 4);
            None of one that ends with TFLite_Detection_PostProcess.
    """
    model = tflite_file.parse(content)
    outputs = _OUTPUTS[gives if anchors is None else "raw boxes"]
    table = _model_metadata(outputs, labels, preprocessing, about)
    builder = flatbuffers.Builder()
    builder.Finish(_write(builder, "ModelMetadata", table), IDENTIFIER)
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(bytes(builder.Output()), np.uint8)
    entries = {entry.name: entry for entry in model.metadata or []}
    entry = entries.pop(BUFFER_NAME, None)
    if entry is None:
        entry = schema.MetadataT()
        entry.name, entry.buffer = BUFFER_NAME, len(model.buffers)
        model.buffers.append(None)
    model.buffers[entry.buffer] = buffer
    model.metadata = [*entries.values(), entry]
    steps = _steps(preprocessing, threshold, gives)
    members = {} if labels is None else {LABELS: "\n".join(labels) + "\n"}
    if anchors is not None:
        steps["box_scales"] = BOX_SCALES
        file = io.BytesIO()
        np.save(file, np.asarray(anchors, np.float32))
        members[ANCHORS] = file.getvalue()
    members[PREPROCESSING] = json.dumps(steps)
    return _with_archive(tflite_file.pack(model), members)


def _model_metadata(outputs, labels, preprocessing, about):
    """Returns the `ModelMetadata` table as nested dicts."""
    height, width = preprocessing.input_size
    image = {
        "name": "image",
        "description": "RGB image, raw pixels 0 to 255.",
        "content": {
            "content_properties_type": _IMAGE,
            "content_properties": {
                "color_space": _RGB,
                "default_size": {"width": width, "height": height},
            },
        },
        # The graph normalizes by itself: readers must feed the pixels as they are.
        "process_units": [
            {"options_type": _NORMALIZATION, "options": {"mean": [0.0], "std": [1.0]}}
        ],
        "stats": _FROM_0_TO_255,
    }
    described = []
    for output in outputs:
        tensor = {"content": _FEATURES} | output
        kind = tensor.pop("labels", None)
        if kind and labels is not None:
            text = "Names of the classes, one a line."
            file = {"name": LABELS, "description": text, "type": kind}
            tensor["associated_files"] = [file]
        described.append(tensor)
    graph = {"input_tensor_metadata": [image], "output_tensor_metadata": described}
    if about.run_sha256:
        graph["custom_metadata"] = [
            {"name": RUN_HASH, "data": bytes.fromhex(about.run_sha256)}
        ]
    texts = {"name": about.name, "author": about.author, "license": about.license}
    steps = "How to resize and crop a photograph: JSON."
    return {
        **{field: text for field, text in texts.items() if text is not None},
        "subgraph_metadata": [graph],
        "associated_files": [{"name": PREPROCESSING, "description": steps}],
        "min_parser_version": "1.5.0",  # has custom_metadata
    }


def _write(builder, kind, value):
    """Writes a value behind everything that it points to; returns its offset."""
    if kind == "text":
        return builder.CreateString(value)
    if kind == "bytes":
        return builder.CreateByteVector(value)
    if kind == "floats":
        return builder.CreateNumpyVector(np.array(value, np.float32))
    if kind == "uints":
        return builder.CreateNumpyVector(np.array(value, np.uint32))
    if kind.startswith("["):
        items = [_write(builder, kind[1:-1], item) for item in value]
        builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            builder.PrependUOffsetTRelative(item)
        return builder.EndVector()
    offsets = {}
    for name, field_kind in _FIELDS[kind]:
        if name in value and field_kind not in _NUMBERS:
            if field_kind.startswith("<"):  # members are numbered from 1
                members = field_kind[1:-1].split("|")
                field_kind = members[value[f"{name}_type"] - 1]
            offsets[name] = _write(builder, field_kind, value[name])
    builder.StartObject(len(_FIELDS[kind]))
    for slot, (name, field_kind) in enumerate(_FIELDS[kind]):
        if name in offsets:
            builder.PrependUOffsetTRelativeSlot(slot, offsets[name], 0)
        elif name in value:
            builder.PrependSlot(_NUMBERS[field_kind], slot, value[name], 0)
    return builder.EndObject()


def _with_archive(content, members):
    file = io.BytesIO(content)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        # ZipInfo has a fixed date, so that equal models make equal files.
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()


def _steps(preprocessing, threshold, gives):
    """Returns what preprocessing.json says, in the oldest version that can say it."""
    steps = {
        "version": 1,
        "input_size": preprocessing.input_size,
        "resize_size": preprocessing.resize_size,
        "crop_fraction": preprocessing.crop_fraction,
        "interpolation": preprocessing.interpolation,
    }
    # Runners that do not know this field ignore it, and decode more pixels.
    if preprocessing.reduced_decoding != REDUCED_DECODING:
        steps["reduced_decoding"] = preprocessing.reduced_decoding
    height, width = preprocessing.input_size
    # The runner of version 0.1 would cut another region out for an input that is not
    # square; it refuses version 2.
    is_plain = threshold is None and gives is None
    if preprocessing.in_version_1 and height == width and is_plain:
        return steps
    del steps["resize_size"]
    steps |= {
        "version": 2,
        "resize": preprocessing.resize,
        "antialias": preprocessing.antialias,
    }
    if gives is not None:  # runners that would show it as scores refuse version 3
        return steps | {"version": 3, "output": gives}
    return steps if threshold is None else steps | {"threshold": threshold}
