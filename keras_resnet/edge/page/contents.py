"""What a page has to know of a .tflite, and why some files cannot have one."""

import os

from keras_resnet.edge.convert import tflite_file
from keras_resnet.edge.convert.tflite_file import schema
from keras_resnet.runner.classifier import Classifier
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.images import geometry_of
from keras_resnet.runner.model_file import read_model

# A page holds its model as text, a third larger. Hosts of web pages, GitHub for one,
# refuse files of more than 100 MB.
MAX_MODEL_BYTES = 64_000_000
# What LiteRT for browsers takes and gives.
DTYPES = {schema.TensorType.UINT8: "uint8", schema.TensorType.FLOAT32: "float32"}
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
        UserError: the file is damaged, is too large, has no labels, gives no scores, or
            cannot run in a browser.
    """
    size = os.path.getsize(path)
    if size > MAX_MODEL_BYTES:
        raise UserError(
            f"{path}: has {size / 1e6:.1f} MB, and a page holds models of at most "
            f"{MAX_MODEL_BYTES / 1e6:.0f} MB. Take --quantize=int8 or a smaller network"
        )
    if "edgetpu-custom-op" in read_model(os.fspath(path)).custom_operators:
        raise UserError(
            f"{path}: is compiled for the Edge TPU, which browsers cannot use. Take "
            "the file that it was compiled from"
        )
    model = Classifier(path, labels, delegate="none")
    if model.channels:
        raise UserError(
            f"{path}: gives features and no scores. Export it without --features"
        )
    if model.labels is None:
        raise UserError(
            f"{path}: has no labels inside. Give a file of them, one a line: --labels"
        )
    graph = tflite_file.parse(_read(path)).subgraphs[0]
    source = _tensor(path, "takes", graph.tensors[graph.inputs[0]])
    normalization = _normalization(path, model, source["dtype"])
    return {
        "task": "classify",
        "labels": model.labels,
        "threshold": model.threshold,
        "preprocessing": steps(geometry_of(model)),
        "input": {"dtype": source["dtype"], **normalization},
        "outputs": [
            _tensor(path, "gives", graph.tensors[index]) for index in graph.outputs
        ],
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
            f"{verb} {' or '.join(DTYPES.values())} alone. keras-resnet export writes "
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


def _normalization(path, model, dtype):
    """Returns the mean and std that pixels are normalized with, for a float input."""
    if dtype == "uint8":
        return {"mean": None, "std": None}
    file = read_model(os.fspath(path))
    if file.mean:
        mean, std = ((values * 3)[:3] for values in (file.mean, file.std))
        return {"mean": mean, "std": std}
    if model.preprocessing:  # ours normalize in the graph
        return {"mean": None, "std": None}
    raise UserError(
        f"{path}: takes float pixels and does not say how they are normalized. "
        "keras-resnet export writes files that say it"
    )
