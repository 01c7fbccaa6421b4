"""Other programs read the metadata that the export writes."""

import ast
import dataclasses
import json

import numpy as np
import PIL.Image
import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_resnet.edge import Classifier
from keras_resnet.edge.convert import metadata, tflite_file
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.preprocessing import parse_preprocessing
from tests.helpers import environments, metadata_reader
from tests.helpers.graphs import mean_colour

# Not square, so that a swapped axis shows.
SHAPE = Preprocessing((128, 160), crop_fraction=0.875, interpolation="bicubic")
ABOUT = metadata.About(
    name="zoé",
    author="an author",
    license="Apache-2.0",
    run_sha256="0123456789abcdef" * 4,
)
LABELS = ["erster", "zweiter ü", "third, of commas", *map(str, range(7))]

READ_BY_MEDIAPIPE = """
import sys, zipfile
from mediapipe.tasks.metadata import metadata_schema_py_generated as schema
from mediapipe.tasks.metadata import schema_py_generated as tflite

content = open(sys.argv[1], "rb").read()
model = tflite.ModelT.InitFromObj(tflite.Model.GetRootAs(content))
(entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
data = bytes(model.buffers[entry.buffer].data)
assert schema.ModelMetadata.ModelMetadataBufferHasIdentifier(data, 0)


def plain(value):
    if isinstance(value, list):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return value.tolist()
    if hasattr(value, "__dict__"):
        values = {name: plain(item) for name, item in vars(value).items()}
        return {name: item for name, item in values.items() if item is not None}
    return value.decode() if isinstance(value, bytes) else value


print(plain(schema.ModelMetadataT.InitFromObj(schema.ModelMetadata.GetRootAs(data))))
"""

CLASSIFIED_BY_MEDIAPIPE = """
import sys
import mediapipe
import numpy
from mediapipe.tasks.python import BaseOptions, vision

options = BaseOptions(model_asset_path=sys.argv[1])
options = vision.ImageClassifierOptions(base_options=options, max_results=1)
with vision.ImageClassifier.create_from_options(options) as classifier:
    for pixels in numpy.load(sys.argv[2]):
        image = mediapipe.Image(mediapipe.ImageFormat.SRGB, pixels)
        top = classifier.classify(image).classifications[0].categories[0]
        print((top.index, top.category_name, top.score))
"""


@pytest.fixture(scope="module")
def plain(files):
    """A model without metadata."""
    model = tflite_file.parse(files["int8"].read_bytes())
    model.metadata = []
    return tflite_file.pack(model)


@pytest.fixture(scope="module")
def small():
    """The preprocessing of `plain`."""
    return Preprocessing((32, 32))


@pytest.fixture(scope="module")
def content(plain, small):
    return metadata.with_metadata(plain, LABELS, small, ABOUT)


@pytest.fixture(scope="module")
def peer(shared_data):
    path = shared_data / "peers" / "mobilenet_v1_0.25_128_quant.tflite"
    return path.read_bytes()


def test_what_is_written_is_read(content):
    found = metadata_reader.read(content)
    assert found.about == ABOUT
    assert found.files["labels.txt"].decode().splitlines() == LABELS
    assert set(found.files) == {"labels.txt", "preprocessing.json"}
    assert json.loads(found.files["preprocessing.json"]) == {
        "version": 1,
        "input_size": [32, 32],
        "resize_size": 32,
        "crop_fraction": 1.0,
        "interpolation": "bilinear",
    }


@pytest.mark.parametrize(
    "how",
    [
        Preprocessing((32, 32), antialias=False),
        Preprocessing((32, 32), crop_fraction=0.8, resize="stretch"),
        Preprocessing((32, 32), interpolation="nearest", resize="pad"),
        Preprocessing((32, 48), crop_fraction=0.8),
    ],
)
def test_what_version_1_cannot_say_is_written_in_version_2(plain, how):
    """An input that is not square too: runners of version 0.1 cropped it otherwise."""
    found = metadata_reader.read(metadata.with_metadata(plain, LABELS, how, ABOUT))
    data = found.files["preprocessing.json"]
    assert json.loads(data) == {
        "version": 2,
        "input_size": list(how.input_size),
        "crop_fraction": how.crop_fraction,
        "interpolation": how.interpolation,
        "resize": how.resize,
        "antialias": how.antialias,
    }
    raw = dataclasses.replace(how, mean_rgb_255=(0.0,) * 3, std_rgb_255=(1.0,) * 3)
    read = parse_preprocessing(data, how.input_size)
    assert dataclasses.asdict(read) == dataclasses.asdict(raw)


@pytest.mark.parametrize("version, resize", [(1, "crop"), (2, "stretch")])
def test_reduced_decoding_is_written_where_it_is_not_8(plain, version, resize):
    """In the same version: a runner that does not know it ignores it."""
    how = Preprocessing((32, 32), resize=resize, reduced_decoding=2)
    found = metadata_reader.read(metadata.with_metadata(plain, LABELS, how, ABOUT))
    data = found.files["preprocessing.json"]
    written = json.loads(data)
    assert (written["version"], written["reduced_decoding"]) == (version, 2)
    assert parse_preprocessing(data, (32, 32)).reduced_decoding == 2


def test_what_is_not_known_is_left_out(plain, small):
    about = metadata.About("only a name")
    found = metadata_reader.read(metadata.with_metadata(plain, None, small, about))
    assert found.about == about
    assert set(found.files) == {"preprocessing.json"}
    (graph,) = found.table["subgraph_metadata"]
    assert set(graph) == {"input_tensor_metadata", "output_tensor_metadata"}
    assert "associated_files" not in graph["output_tensor_metadata"][0]
    assert metadata_reader.read(plain) == metadata_reader.Metadata(None, {}, {})


def test_equal_arguments_give_equal_bytes_and_replace_what_was_there(
    content, plain, small
):
    assert metadata.with_metadata(plain, LABELS, small, ABOUT) == content
    other = metadata.with_metadata(plain, LABELS[:3], small, metadata.About("other"))
    assert other != content
    assert metadata.with_metadata(other, LABELS, small, ABOUT) == content


def test_the_model_stays_the_same(content, plain, held_out):
    before, after = tflite_file.parse(plain), tflite_file.parse(content)
    constants = [buffer.data for buffer in before.buffers if buffer.data is not None]
    assert len(constants) > 10
    for old, new in zip(before.buffers, after.buffers, strict=False):
        assert (old.data is None) == (new.data is None)
        assert old.data is None or np.array_equal(old.data, new.data)
    interpreters = []
    for model in (plain, content):
        interpreter = Interpreter(model_content=model)
        interpreter.allocate_tensors()
        interpreters.append(interpreter)
    for pixels in held_out[0][:20]:
        scores = []
        for interpreter in interpreters:
            place = interpreter.get_input_details()[0]["index"]
            interpreter.set_tensor(place, pixels[None])
            interpreter.invoke()
            place = interpreter.get_output_details()[0]["index"]
            scores.append(interpreter.get_tensor(place))
        assert np.array_equal(*scores)


def test_constants_lie_at_multiples_of_16_bytes(content):
    model = tflite_file.schema.Model.GetRootAs(content)
    places = []
    for number in range(model.BuffersLength()):
        buffer = model.Buffers(number)
        if not buffer.DataIsNone():
            table = buffer._tab
            places.append(table.Vector(table.Offset(4)))
    assert len(places) > 10 and not any(place % 16 for place in places)


def test_an_independent_reader_finds_the_standard_fields(tmp_path):
    path = tmp_path / "model.tflite"
    path.write_bytes(metadata.with_metadata(mean_colour(), LABELS, SHAPE, ABOUT))
    found = ast.literal_eval(environments.run("mediapipe", READ_BY_MEDIAPIPE, path))
    for field in ("name", "author", "license"):
        assert found[field] == getattr(ABOUT, field)
    (file,) = found["associatedFiles"]
    assert file["name"] == "preprocessing.json"
    (graph,) = found["subgraphMetadata"]
    (image,), (scores,) = graph["inputTensorMetadata"], graph["outputTensorMetadata"]
    assert image["content"]["contentPropertiesType"] == 2  # ImageProperties
    assert image["content"]["contentProperties"] == {
        "colorSpace": 1,  # RGB
        "defaultSize": {"width": 160, "height": 128},
    }
    assert image["processUnits"] == [
        {"optionsType": 1, "options": {"mean": [0.0], "std": [1.0]}}
    ]
    assert image["stats"] == {"max": [255.0], "min": [0.0]}
    assert scores["content"]["contentPropertiesType"] == 1  # FeatureProperties
    assert scores["stats"] == {"max": [255.0], "min": [0.0]}
    (labels,) = scores["associatedFiles"]
    assert (labels["name"], labels["type"]) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    (custom,) = graph["customMetadata"]
    assert custom["name"] == "TRAINING_RUN_SHA256"
    assert bytes(custom["data"]).hex() == ABOUT.run_sha256


def mediapipe_agrees(path, images, tmp_path):
    """Asserts equal top-1; of exactly equal scores either may be the first."""
    np.save(tmp_path / "pixels.npy", images)
    output = environments.run(
        "mediapipe", CLASSIFIED_BY_MEDIAPIPE, path, tmp_path / "pixels.npy"
    )
    theirs = [ast.literal_eval(line) for line in output.splitlines()]
    classifier = Classifier(path)
    assert len(theirs) == len(images)
    ties = 0
    for pixels, (index, label, score) in zip(images, theirs, strict=True):
        scores = classifier.scores(pixels)
        assert scores[index] == scores.max() == score
        assert label == classifier.labels[index]
        ties += index != scores.argmax()
    return ties


def test_mediapipe_runs_an_export_as_it_is(files, held_out, tmp_path):
    images = held_out[0][:100]
    assert mediapipe_agrees(files["qat"], images, tmp_path) <= 2


def test_mediapipe_agrees_on_photographs(shared_data, peer, tmp_path):
    labels = (shared_data / "peers" / "imagenet_labels.txt").read_text().splitlines()
    preprocessing = Preprocessing((128, 128), crop_fraction=0.875)
    path = tmp_path / "model.tflite"
    path.write_bytes(metadata.with_metadata(peer, labels, preprocessing, ABOUT))
    photos = sorted((shared_data / "imagenet_sample" / "val").rglob("*.JPEG"))
    assert len(photos) == 100
    images = np.stack(
        [preprocessing.resize_and_crop(PIL.Image.open(photo)) for photo in photos]
    )
    assert mediapipe_agrees(path, images, tmp_path) <= 10


@pytest.mark.parametrize("suffix", ["", "_edgetpu"])
def test_corals_own_metadata_are_read(shared_data, suffix):
    path = shared_data / "peers" / f"mobilenet_v1_0.25_128_quant{suffix}.tflite"
    found = metadata_reader.read(path.read_bytes())
    assert found.about.name == "ImageClassifier"
    (graph,) = found.table["subgraph_metadata"]
    (image,), (scores,) = (
        graph["input_tensor_metadata"],
        graph["output_tensor_metadata"],
    )
    assert image["process_units"][0]["options"] == {"mean": [127.5], "std": [127.5]}
    assert scores["associated_files"][0]["name"] == "imagenet_labels.txt"
    assert len(found.files["imagenet_labels.txt"].splitlines()) == 1001


def test_every_field_of_about_is_text_that_travels(plain, small):
    for field in dataclasses.fields(metadata.About):
        if field.name == "run_sha256":
            continue
        about = dataclasses.replace(ABOUT, **{field.name: "x" * 70_000})
        found = metadata_reader.read(
            metadata.with_metadata(plain, LABELS, small, about)
        )
        assert found.about == about
