"""What a page has to know of a .tflite, and why some files cannot have one."""

import base64
import os

from keras_resnet.edge.convert import tflite_file
from keras_resnet.edge.convert.tflite_file import schema
from keras_resnet.runner.detector import parse_anchors, parse_box_scales, places_of
from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.runner.image_model import task_of
from keras_resnet.runner.images import geometry_of
from keras_resnet.runner.model_file import read_model
from keras_resnet.runner.showing import MODELS

# A page holds its model as text, a third larger. Hosts of web pages, GitHub for one,
# refuse files of more than 100 MB.
MAX_MODEL_BYTES = 64_000_000
# What LiteRT for browsers takes and gives.
DTYPES = {
    schema.TensorType.UINT8: "uint8",
    schema.TensorType.FLOAT32: "float32",
    schema.TensorType.INT32: "int32",
}
OTHER_DTYPES = {
    value: name.lower()
    for name, value in vars(schema.TensorType).items()
    if isinstance(value, int)
}


def describe(path, labels=None):
    """Returns what the scripts of a page read of a model, as a dict for JSON.

    Args:
        path: of the .tflite.
        labels: path of a label file; None takes the labels inside.

    Raises:
        UserError: the file is damaged, is too large, has no labels, gives features, or
            cannot run in a browser.
    """
    size = os.path.getsize(path)
    if size > MAX_MODEL_BYTES:
        raise UserError(
            f"{path}: has {size / 1e6:.1f} MB, and a page holds models of at most "
            f"{MAX_MODEL_BYTES / 1e6:.0f} MB. Take --quantize=int8 or a smaller network"
        )
    file = read_model(os.fspath(path))
    if "edgetpu-custom-op" in file.custom_operators:
        raise UserError(
            f"{path}: is compiled for the Edge TPU, which browsers cannot use. Take "
            "the file that it was compiled from"
        )
    task = task_of(file)
    model = MODELS[task](file, labels, delegate="none")
    if task == "classify" and model.channels:
        raise UserError(
            f"{path}: gives features and no scores. Export it without --features"
        )
    if model.labels is None:
        raise UserError(
            f"{path}: has no labels inside. Give a file of them, one a line: --labels"
        )
    graph = tflite_file.parse(_read(path)).subgraphs[0]
    source = _tensor(path, "takes", graph.tensors[graph.inputs[0]])
    normalization = _normalization(file, model, source["dtype"])
    outputs = [_tensor(path, "gives", graph.tensors[index]) for index in graph.outputs]
    return {
        "task": task,
        "labels": model.labels,
        "threshold": model.threshold if task == "classify" else None,
        "preprocessing": steps(geometry_of(model)),
        "input": {"dtype": source["dtype"], **normalization},
        "outputs": outputs,
        "boxes": _boxes(file, outputs) if task == "detect" else None,
    }


def _boxes(file, outputs):
    """Returns what makes boxes of a detector's outputs; its `Detector` has checked it.

    That is the anchors, float32 in base64, and the scales of raw outputs, or the places
    of the four outputs of TFLite_Detection_PostProcess.
    """
    shapes = [tuple(output["shape"]) for output in outputs]
    if len(outputs) == 4:
        with user_errors(file.path, ValueError):
            return {"places": places_of(shapes)}
    anchors = parse_anchors(file.anchors, shapes[0][1])
    return {
        "anchors": base64.b64encode(anchors.tobytes()).decode(),
        "boxScales": parse_box_scales(file.preprocessing),
        "places": None,
    }


def steps(how):
    """Returns what geometry.js takes for a `Preprocessing`, as a dict for JSON."""
    return {
        "inputSize": how.input_size,
        "resizedSize": how.resized_size,
        "resize": how.resize,
        "interpolation": how.interpolation,
        "antialias": how.antialias,
    }


def _read(path):
    with open(path, "rb") as file:
        return file.read()


def _tensor(path, verb, tensor):
    """Returns the dtype, shape and quantization of a tensor."""
    dtype = DTYPES.get(tensor.type)
    if dtype is None:
        raise UserError(
            f"{path}: {verb} {OTHER_DTYPES[tensor.type]}, and LiteRT for browsers "
            f"{verb} {', '.join(DTYPES.values())} alone. keras-resnet export writes "
            "such files"
        )
    how = tensor.quantization
    quantized = how is not None and how.scale is not None and dtype == "uint8"
    return {
        "dtype": dtype,
        "shape": tensor.shape.tolist(),
        "scale": float(how.scale[0]) if quantized else 0.0,
        "zeroPoint": int(how.zeroPoint[0]) if quantized else 0,
    }


def _normalization(file, model, dtype):
    """Returns the mean and std that pixels are normalized with, for a float input."""
    if dtype == "uint8":
        return {"mean": None, "std": None}
    if file.mean:
        mean, std = ((values * 3)[:3] for values in (file.mean, file.std))
        return {"mean": mean, "std": std}
    if model.preprocessing:  # ours normalize in the graph
        return {"mean": None, "std": None}
    raise UserError(
        f"{file.path}: takes float pixels and does not say how they are normalized. "
        "keras-resnet export writes files that say it"
    )
