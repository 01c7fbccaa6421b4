"""A SavedModel folder as a classifier that can be exported: its graph unchanged."""

import pathlib
import re

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from keras_resnet.console import hidden_output
from keras_resnet.errors import first_line
from keras_resnet.rewrite import folding
from keras_resnet.runner.errors import UserError

# A SavedModel is a program; one that scores images needs none of these operations.
_FORBIDDEN = (
    *("EagerPyFunc", "PyFunc", "PyFuncStateless"),
    *("MatchingFiles", "ReadFile", "WriteFile"),
)
_INITIALIZATION = "__saved_model_init_op"
_LARGEST_BATCH = 32


def is_folder(path):
    """Returns whether a path is that of a SavedModel folder."""
    return (pathlib.Path(path) / "saved_model.pb").is_file()


def has_no_layers(path):
    """Returns the `UserError` of what needs a model of layers."""
    return UserError(
        f"{path} is a SavedModel: a graph without layers, which adopting and "
        "quantization-aware training need. Export it as it is with export.py "
        f'--model={path}, or give the Keras model, saved with model.save("my.keras")'
    )


class SavedModel(tf.Module):
    """A graph from float32 images (batch, height, width, 3) to scores (batch, classes).

    Attributes:
        inputs: list of one `tf.TensorSpec`.
        outputs: likewise.
    """

    def __init__(self, name, loaded, signature):
        """Wraps one signature of what `tf.saved_model.load` returned."""
        super().__init__(re.sub(r"\W|^(?=\d)", "_", name))
        self._loaded = loaded  # keeps its variables alive
        self._signature = signature
        (spec,) = signature.structured_input_signature[1].values()
        self._batch = spec.shape[0]
        self.inputs = [tf.TensorSpec((None, *spec.shape[1:]), tf.float32, spec.name)]
        self._front, self._end = None, None
        self.outputs = [tf.TensorSpec((None, self._classes()))]

    def _classes(self):
        zeros = np.zeros((1, *self.inputs[0].shape[1:]), np.float32)
        shape = self.predict(zeros).shape
        if len(shape) != 2 or shape[1] < 2:
            raise UserError(
                "a SavedModel must return scores (batch, classes) of 2 classes or "
                f"more. Received: outputs of shape {(None, *shape[1:])}. Give the "
                'Keras model, saved with model.save("my.keras")'
            )
        return shape[1]

    def __call__(self, images, training=False):
        """Computes scores; the signature's own batch, or any where it has none."""
        if self._front is not None:
            kernel, bias = self._front
            images = tf.nn.conv2d(images, kernel, 1, "VALID") + bias
        (scores,) = self._signature(**{self.inputs[0].name: images}).values()
        return self._end(scores) if self._end else scores

    def predict(self, images, verbose=0):
        """Returns the scores of any number of images, as an array."""
        size = self._batch or _LARGEST_BATCH
        scores = []
        for start in range(0, len(images), size):
            batch = np.float32(images[start : start + size])
            missing = size - len(batch) if self._batch else 0
            filled = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)])
            scores.append(np.asarray(self(tf.constant(filled)))[: len(batch)])
        return np.concatenate(scores)

    def with_parts(self, front=None, end=None):
        """Returns the graph with a 1x1 convolution in front or a function behind."""
        copy = type(self)(self.name, self._loaded, self._signature)
        copy._front = self._front if front is None else front
        copy._end = self._end if end is None else end
        return copy


def load(path):
    """Opens a SavedModel folder.

    Args:
        path: of the folder, of any version of TensorFlow 2.

    Returns:
        `SavedModel`.

    Raises:
        UserError: it is damaged, or has no signature that classifies images of one
            size.
    """
    path = pathlib.Path(path)
    name = _serving_signature(path)
    try:
        with hidden_output(2):
            loaded = tf.saved_model.load(str(path))
        signature = loaded.signatures[name]
    except Exception as error:  # TensorFlow raises many kinds
        reason = first_line(error)
        raise UserError(f"{path} is no readable SavedModel: {reason}") from error
    return SavedModel(path.resolve().name, loaded, signature)


def _serving_signature(path):
    """Returns the name of the signature to export, from the file alone."""
    try:
        content = (path / "saved_model.pb").read_bytes()
        graphs = saved_model_pb2.SavedModel.FromString(content).meta_graphs
        (graph,) = [graph for graph in graphs if "serve" in graph.meta_info_def.tags]
    except Exception as error:  # protobuf raises kinds of its own
        raise UserError(
            f"{path} is no readable SavedModel: saved_model.pb is damaged or has no "
            "graph with the tag 'serve'"
        ) from error
    for function in (graph.graph_def, *graph.graph_def.library.function):
        for node in getattr(function, "node_def", getattr(function, "node", ())):
            if node.op in _FORBIDDEN:
                raise UserError(
                    f"{path} reads files or runs Python code, by its operation "
                    f"{node.name!r} ({node.op}). Save one that computes scores alone"
                )
    found = {k: v for k, v in graph.signature_def.items() if k != _INITIALIZATION}
    if "serving_default" in found:
        name = "serving_default"
    elif len(found) == 1:
        (name,) = found
    else:
        received = f"signatures {', '.join(sorted(found))}" if found else "none"
        raise UserError(
            f"{path} must have one signature, or one of the name serving_default. "
            f"Received: {received}. Save it with model.export(FOLDER), or with "
            "tf.saved_model.save(module, FOLDER, signatures=function)"
        )
    _check_interface(path, name, found[name])
    return name


def _check_interface(path, name, signature):
    """Raises `UserError` unless a signature maps one RGB image to one tensor."""
    inputs, outputs = signature.inputs, signature.outputs
    if len(inputs) != 1 or len(outputs) != 1:
        raise UserError(
            f"the signature {name} of {path} must take one image and return one tensor "
            f"of scores. Received: inputs {', '.join(sorted(inputs))}; outputs "
            f"{', '.join(sorted(outputs))}. Save a signature of these alone"
        )
    (tensor,) = inputs.values()
    shape = tuple(None if d.size < 0 else d.size for d in tensor.tensor_shape.dim)
    kind = tf.dtypes.as_dtype(tensor.dtype).name
    received = f"Received: {kind} {shape} in the signature {name} of {path}"
    if len(shape) != 4 or shape[3] != 3 or kind != "float32":
        raise UserError(
            "a SavedModel must take float32 images (batch, height, width, 3). "
            f"{received}. Save a signature that does"
        )
    if None in shape[1:3]:
        raise UserError(
            f"a file for a device has an input of fixed size. {received}. Save a "
            "signature of tf.TensorSpec((None, height, width, 3))"
        )


def with_scores(model, images, scores):
    """Gives a graph the end that a file for the device needs.

    Its end cannot be read in a graph, so its scores of some images decide.

    Args:
        model: `SavedModel`.
        images: float32 (number, height, width, 3), preprocessed.
        scores: "softmax", "independent", or None where nothing was said.

    Returns:
        (`SavedModel`, list of notes for the user).

    Raises:
        UserError: the scores are no shares of 1, and nobody said what they are.
    """
    if scores not in (None, "softmax", "independent"):
        raise UserError(f"scores must be softmax or independent. Received: {scores!r}")
    found = model.predict(images)
    in_range = bool(np.all((found >= 0) & (found <= 1)))
    are_shares = in_range and bool(np.allclose(found.sum(-1), 1, atol=1e-3))
    seen = f"on {len(images)} images the scores of {model.name!r}"
    if are_shares and scores != "independent":
        return model, []
    if are_shares:
        raise UserError(
            f"{seen} sum to 1: they are those of a softmax. Received: "
            "--scores=independent. Leave it out"
        )
    if scores is None:
        raise UserError(
            f"{seen} lie between {found.min():.4g} and {found.max():.4g} and do not "
            "sum to 1: pass --scores=softmax (an image has one class) or "
            "--scores=independent (it may have several)"
        )
    if scores == "independent" and in_range:
        return model, [f"{seen.capitalize()} lie within 0..1: nothing was added."]
    end = tf.nn.softmax if scores == "softmax" else tf.sigmoid
    return model.with_parts(end=end), [f"A {end.__name__} was added behind it."]


def fold_normalization(model, preprocessing):
    """Puts a normalization that 8 bits cannot express in front of a graph.

    The counterpart of `keras_resnet.rewrite.fold_normalization`, which puts it into
    weights; here a 1x1 convolution computes it.

    Returns:
        (`SavedModel`, `Preprocessing` that is `uniform`, list of notes for the user).
    """
    if preprocessing.uniform:
        return model, preprocessing, []
    uniform, _, _ = folding.uniform_form(preprocessing)
    matrix, offset = folding.affine_map(preprocessing)
    front = np.float32(matrix.T)[None, None], np.float32(offset)
    note = (
        "The normalization cannot go into the weights of a SavedModel: a 1x1 "
        "convolution in front of it computes it."
    )
    return model.with_parts(front=front), uniform, [note]
