"""A model of Keras 2, rebuilt in Keras 3 with the same names and weights.

tf_keras opens it; each of its layers is then built again in Keras 3, and both are
compared. The architecture is checked before, since tf_keras would run whatever Python
code is in it and import whatever module it names.
"""

import importlib
import inspect

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import errors, model_metadata
from keras_resnet.runner.errors import UserError
from keras_resnet.training.formats import config as configs
from keras_resnet.training.formats import operations

# Of the largest output: float32 rounding stays an order below.
TOLERANCE = 1e-5
# (layer, argument of Keras 2): its name in Keras 3.
_RENAMED = {("LeakyReLU", "alpha"): "negative_slope"}
_OPERATIONS = ("TFOpLambda", "SlicingOpLambda")
# Of keras.applications' InceptionResNetV2; Keras 3 has it under no public name.
_SCALE = "Custom>CustomScaleLayer"
_MODELS = ("Functional", "Model", "Sequential")
_SHOWN_IMAGES = 2
_REMEDY = (
    "Build the model in Keras 3 and load the weights, or export its SavedModel folder: "
    "export.py --model=FOLDER"
)


def load(path, architecture):
    """Opens a file of Keras 2 as a model of Keras 3.

    Args:
        path: of a `.keras` or `.h5` file.
        architecture: what `config.of_zip` or `config.of_hdf5` read in it; its `Lambda`
            layers are run.

    Returns:
        `keras.Model` in float32.

    Raises:
        UserError: it holds a layer that Keras 3 does not have or computes otherwise,
            or it is damaged.
    """
    tf_keras = _import_tf_keras()
    scopes = importlib.import_module("tf_keras.src.saving.serialization_lib")
    for layer, found in configs.objects_in(architecture):
        _check_known(layer, found, path)
    try:
        # Whoever does not allow Lambda layers has refused them before.
        with scopes.SafeModeScope(False):
            old = tf_keras.models.model_from_config(_plain(architecture))
        old.load_weights(path)
    except Exception as error:  # h5py and Keras raise many kinds
        raise UserError(
            f"{path} is no readable model of Keras 2: {errors.first_line(error)}. "
            f"{_REMEDY}"
        ) from error
    if not old.inputs:
        raise UserError(
            f"the model {old.name!r} was never built. Save it after "
            "model.build((None, height, width, 3))"
        )
    layers = {}
    new = _carried_model(old, layers)
    _check_equal(old, new, layers)
    metadata = model_metadata.read(path) if path.suffix == ".keras" else None
    return model_metadata.attach(new, **metadata) if metadata else new


def _import_tf_keras():
    return errors.require("tf_keras", "train", "a model file of Keras 2")


def _check_known(layer, found, path):
    """Raises `UserError` unless tf_keras has an object, and runs no code for it."""
    tf_keras = _import_tf_keras()
    kind, inner = found["class_name"], found.get("config")
    if kind in _OPERATIONS:
        name = inner["function"]
        if name not in operations.FUNCTIONS:
            raise UserError(
                f"the operation {layer!r} (tf.{name}) of {path} has no counterpart in "
                f"Keras 3 that is known here. {_REMEDY}"
            )
        return
    known = ("function", "Policy", "TensorShape", _SCALE, *_MODELS)
    if kind in known or found.get("registered_name") == _SCALE or kind.startswith("__"):
        return
    homes = ("layers", "initializers", "regularizers", "constraints")
    if not any(hasattr(getattr(tf_keras, home), kind) for home in homes):
        raise UserError(
            f"the layer {layer!r} ({kind}) of {path} is custom code of Keras 2, which "
            f"does not run in Keras 3. {_REMEDY}"
        )


def _plain(value):
    """Returns an architecture without modules: tf_keras would import them.

    Functions become their names, and layers compute in float32.
    """
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("class_name")
    if kind == "Policy":
        return "float32"
    if kind == "function":
        return value["config"]
    if kind in ("__tuple__", "TensorShape"):
        return [_plain(each) for each in value["items"]]
    if kind == "__ellipsis__":
        return ...
    if kind is None:
        return {key: _plain(each) for key, each in value.items()}
    dropped = ("module", "registered_name", "build_config", "compile_config")
    plain = {key: _plain(each) for key, each in value.items() if key not in dropped}
    return plain | (
        {"class_name": _SCALE} if value.get("registered_name") == _SCALE else {}
    )


def _carried_model(old, layers):
    """Returns a functional or sequential model of Keras 2 in Keras 3.

    Args:
        old: the model.
        layers: {id of a layer of Keras 2: what computes it in Keras 3}; receives those
            of the model.
    """

    def call(layer, args, kwargs):
        if id(layer) not in layers:
            layers[id(layer)] = _carried(layer, layers)
        new = layers[id(layer)]
        outputs = _applied(layer, new, args, kwargs)
        if not isinstance(new, keras.Layer):
            _name_operations(outputs, (args, kwargs), _name(layer))
        return outputs

    inputs = [
        keras.Input(
            batch_shape=tuple(x.shape), dtype=x.dtype.name, name=_name(x.node.layer)
        )
        for x in old.inputs
    ]
    outputs = _walk(old, inputs, call)
    return keras.Model(
        inputs[0] if len(inputs) == 1 else inputs,
        outputs[0] if len(outputs) == 1 else outputs,
        name=_name(old),
    )


def _name_operations(output, inputs, name):
    """Names the operations of a function: Keras's own names may be those of layers."""
    known = {id(x) for x in keras.tree.flatten(inputs)}
    found, names = [output], []
    while found:
        tensor = found.pop()
        if isinstance(tensor, keras.KerasTensor) and id(tensor) not in known:
            known.add(id(tensor))
            operation = tensor._keras_history.operation
            operation.name = f"{name}_part_{len(names)}" if names else name
            names.append(operation.name)
            found.extend(operation._inbound_nodes[-1].input_tensors)


def _walk(model, inputs, call):
    """Runs a model of Keras 2 on `inputs`, where `call` computes each layer."""
    found = {_key(x): value for x, value in zip(model.inputs, inputs, strict=True)}

    def filled(value):
        if hasattr(value, "_keras_history"):
            return found[_key(value)]
        return value.numpy() if tf.is_tensor(value) else value

    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                args, kwargs = tf.nest.map_structure(
                    filled, (node.call_args, node.call_kwargs)
                )
                outputs = tf.nest.flatten(call(node.layer, args, kwargs))
                for x, value in zip(
                    tf.nest.flatten(node.outputs), outputs, strict=True
                ):
                    found[_key(x)] = value
    return [found[_key(x)] for x in model.outputs]


def _key(tensor):
    history = tensor._keras_history
    return id(history.layer), history.node_index, history.tensor_index


def _applied(layer, new, args, kwargs, **others):
    """Calls what computes a layer in Keras 3."""
    kwargs = {k: v for k, v in kwargs.items() if k not in ("training", "mask", "name")}
    try:
        return new(*args, **kwargs, **others)
    except Exception as error:
        raise _refused(layer, errors.first_line(error)) from error


def _refused(layer, reason):
    return UserError(
        f"cannot carry layer {layer.name!r} ({type(layer).__name__}) from Keras 2 to "
        f"Keras 3: {reason}. {_REMEDY}"
    )


def _carried(layer, layers):
    """Returns what computes a layer of Keras 2 in Keras 3, with its weights."""
    kind = type(layer).__name__
    if kind in _MODELS:
        return _carried_model(layer, layers)
    if kind in _OPERATIONS:
        return operations.FUNCTIONS[layer.symbol]
    if kind == "CustomScaleLayer":
        return lambda inputs: inputs[0] + inputs[1] * layer.scale
    if kind == "Lambda":
        return keras.layers.Lambda(
            layer.function, arguments=layer.arguments, name=_name(layer)
        )
    new = _same_layer(layer, kind)
    weights = layer.get_weights()
    if weights and not kind.startswith("Random"):  # whose states are seeds
        if not new.built:
            new.build(layer.input_shape)
        new.set_weights(weights)
        if hasattr(new, "finalize_state"):  # Normalization: constants of weights
            new.finalize_state()
    return new


def _same_layer(layer, kind):
    """Returns the layer of Keras 3 of the same configuration, without weights."""
    same = getattr(keras.layers, kind, None)
    if same is None:
        raise _refused(layer, "Keras 3 has no such layer")
    known = {"name", "data_format", *inspect.signature(same.__init__).parameters}
    config = {}
    for key, value in layer.get_config().items():
        key = _RENAMED.get((kind, key), key)
        # Weights are copied; regularizers and constraints are the training's.
        if key not in known or key.endswith(
            ("_initializer", "_regularizer", "_constraint")
        ):
            continue
        if key.endswith("activation"):
            value = _same_activation(layer, key)
        config[key] = list(value) if isinstance(value, tuple | list) else value
    if kind == "BatchNormalization":  # Keras 3 takes one axis alone
        (config["axis"],) = config["axis"]
    config["name"] = _name(layer)
    try:
        return same.from_config(config)
    except Exception as error:
        raise _refused(layer, errors.first_line(error)) from error


def _same_activation(layer, key):
    """Returns the name of an activation that Keras 3 has and computes alike."""
    function = getattr(layer, key)
    name = function.__name__
    values = np.linspace(-8, 8, 65, dtype=np.float32)[None]
    try:
        same = np.asarray(keras.activations.get(name)(values))
    except ValueError:
        raise _refused(layer, f"Keras 3 has no {key} {name!r}") from None
    if not np.allclose(same, function(tf.constant(values)), atol=1e-6):
        raise _refused(layer, f"Keras 3 computes its {key} {name!r} otherwise")
    return name


def _name(layer):
    return layer.name.replace("/", "_")  # Keras 3 refuses a slash


def _check_equal(old, new, layers):
    """Raises `UserError` where the model of Keras 3 has other scores.

    Rounding, which a network can amplify, is told apart by comparing every layer on
    the same inputs.
    """
    if len(old.inputs) != 1 or None in old.inputs[0].shape[1:]:
        return  # whoever opens the model refuses it
    batch = old.inputs[0].shape[0] or _SHOWN_IMAGES
    rng = np.random.default_rng(0)
    images = np.float32(rng.integers(0, 256, (batch, *old.inputs[0].shape[1:])))
    scores = [tf.nest.flatten(model(images, training=False)) for model in (old, new)]
    if not _differ(*scores):
        return

    def compared(layer, args, kwargs):
        if type(layer).__name__ in _MODELS:
            return _walk(layer, tf.nest.flatten(args), compared)
        new = layers[id(layer)]
        kwargs = {key: value for key, value in kwargs.items() if key != "training"}
        expected = layer(*args, **kwargs, **_inference(layer))
        expected = tf.nest.flatten(expected)
        found = _applied(layer, new, args, kwargs, **_inference(new))
        found = tf.nest.flatten(found)
        if _differ(expected, found):
            raise _refused(layer, "Keras 3 computes it otherwise")
        return expected

    _walk(old, [images], compared)


def _inference(layer):
    """Returns the keyword argument that some layers need, random ones above all."""
    call = inspect.signature(getattr(layer, "call", layer))
    return {"training": False} if "training" in call.parameters else {}


def _differ(expected, found):
    for one, other in zip(expected, found, strict=True):
        one, other = np.float64(one), np.float64(other)
        # Written so that what is not a number differs.
        if not np.abs(one - other).max() <= TOLERANCE * np.abs(one).max():
            return True
    return False
