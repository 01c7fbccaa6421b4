"""A Keras model as a flat list of calls, and a model made of such a list.

The private API of Keras is used here, in no other module of the package. It was
tried with Keras 3.10 (JAX) and 3.15 (TensorFlow).
"""

import dataclasses

import keras
import numpy as np

from keras_resnet.errors import first_line
from keras_resnet.runner.errors import UserError

# Layers that return their input at inference, by class; so does every `Random*`.
_IDENTITIES = {
    "ActivityRegularization",
    "AlphaDropout",
    "AugMix",
    "CutMix",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
    "MixUp",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
    "StochasticDepth",  # of keras.applications' ConvNeXt
}
_HALF = ("float16", "bfloat16")


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer or of another Keras operation.

    Attributes:
        operation: the `keras.Operation`. It is not changed: a model is built of copies.
        args: positional arguments; `keras.KerasTensor`s stand for the results of other
            calls.
        kwargs: keyword arguments, likewise.
        outputs: a `keras.KerasTensor` for each result.
        owner: name of the nested model that the call was found in, or "".
        weights: arrays; None: those of the operation.
    """

    operation: keras.Operation
    args: tuple
    outputs: tuple
    kwargs: dict = dataclasses.field(default_factory=dict)
    owner: str = ""
    weights: list | None = None

    @property
    def inputs(self):
        """The `keras.KerasTensor`s among the arguments."""
        flat = keras.tree.flatten((self.args, self.kwargs))
        return [x for x in flat if isinstance(x, keras.KerasTensor)]

    @property
    def kind(self):
        """Name of the class where that is one of Keras, else ""."""
        kind = type(self.operation)
        return kind.__name__ if kind.__module__.split(".")[0] == "keras" else ""

    def filled(self, values):
        """Returns (args, kwargs) with what {id(tensor): value} has for the tensors."""
        return keras.tree.map_structure(
            lambda x: values.get(id(x), x), (self.args, self.kwargs)
        )

    def get_weights(self):
        """Returns the arrays that a copy of the operation receives."""
        if self.weights is not None:
            return self.weights
        if isinstance(self.operation, keras.Layer):
            return self.operation.get_weights()
        return []


@dataclasses.dataclass
class Graph:
    """A model of one input, as calls of which each stands behind those it reads.

    Every tensor keeps its value while calls are exchanged: a call that replaces others
    returns the tensor that the last of them returned, and the others are pruned.
    """

    name: str
    input: keras.KerasTensor
    input_name: str
    calls: list
    outputs: list

    def producer(self, tensor):
        """Returns the call that returns a tensor, or None for the input."""
        return next((c for c in self.calls if _holds(c.outputs, tensor)), None)

    def readers(self, tensor):
        """Returns the calls that read a tensor, and None where it is an output."""
        found = [call for call in self.calls if _holds(call.inputs, tensor)]
        return found + [None] * _holds(self.outputs, tensor)

    def is_shared(self, call):
        """Returns whether a call's operation has other calls."""
        return sum(each.operation is call.operation for each in self.calls) > 1

    def replace(self, call, *new):
        """Puts calls in the place of one."""
        place = self.calls.index(call)
        self.calls[place : place + 1] = new

    def append(self, layer, shape, weights=None):
        """Puts a layer behind the output of a graph of one output."""
        output = keras.KerasTensor(shape, "float32")
        self.calls.append(Call(layer, (self.outputs[0],), (output,), weights=weights))
        self.outputs = [output]

    def prune(self):
        """Removes the calls on which no output depends."""
        wanted = set(map(id, self.outputs))
        kept = []
        for call in reversed(self.calls):
            if any(id(x) in wanted and x is not self.input for x in call.outputs):
                kept.append(call)
                wanted.update(map(id, call.inputs))
        self.calls = kept[::-1]


def _holds(tensors, tensor):
    return any(each is tensor for each in tensors)


def function_of(operation):
    """Returns the Keras graph inside a model, or None where there is none."""
    if isinstance(operation, keras.Sequential):
        first = operation.layers[0] if operation.layers else None
        if operation._functional is None and function_of(first) is not None:
            operation.build(first.input_shape)  # as Keras does when it is first called
        return operation._functional
    return operation if hasattr(operation, "_run_through_graph") else None


def flatten(model):
    """Reads a model, and the models inside it, as one list of calls.

    Layers that return their input at inference are left out.

    Args:
        model: functional or sequential `keras.Model` of one input. Not changed.

    Returns:
        (`Graph`, list of the layers that were left out).
    """
    function = function_of(model)
    first = function.inputs[0]
    image = keras.KerasTensor((None, *first.shape[1:]), "float32")
    graph = Graph(model.name, image, first._keras_history.operation.name, [], [])
    left_out = []

    def result(operation, args, kwargs, node, owner):
        tensors = keras.tree.flatten(args)
        function = function_of(operation)
        if isinstance(operation, keras.layers.Lambda):
            function = _function_of_lambda(operation, tensors)
        if function is not None:
            return walk(function, tensors[: len(function.inputs)], operation.name)
        if _is_identity(operation, tensors):
            left_out.append(operation)
            return tensors[:1]
        if type(operation) is getattr(keras.layers, "Pipeline", None):
            for layer in operation.layers:
                tensors = result(layer, tensors, {}, None, operation.name)
            return tensors
        kwargs = {k: v for k, v in kwargs.items() if k not in ("training", "mask")}
        outputs = _output_tensors(operation, args, kwargs, node, first.shape[0])
        graph.calls.append(Call(operation, tuple(args), outputs, kwargs, owner))
        return outputs

    def walk(function, inputs, owner):
        found = dict(zip(map(id, function.inputs), inputs, strict=True))
        for depth in sorted(function._nodes_by_depth, reverse=True):
            for node in function._nodes_by_depth[depth]:
                if not node.is_input and all(
                    id(x) in found for x in node.input_tensors
                ):
                    args, kwargs = node.arguments.fill_in(found)
                    outputs = result(node.operation, args, kwargs, node, owner)
                    found.update(zip(map(id, node.outputs), outputs, strict=True))
        return [found[id(tensor)] for tensor in function.outputs]

    graph.outputs = walk(function, [image], "")
    return graph, left_out


def is_that_of(graph, model):
    """Returns whether a graph is what a functional model is already."""
    function = function_of(model)
    nodes = [node for nodes in function._nodes_by_depth.values() for node in nodes]
    operations = [id(node.operation) for node in nodes if not node.is_input]
    image = function.inputs[0]
    return (
        function is model
        and isinstance(model.input, keras.KerasTensor)  # no list and no dictionary
        and isinstance(model.output, keras.KerasTensor)
        and (image.shape[0], image.dtype) == (None, "float32")
        and sorted(id(call.operation) for call in graph.calls) == sorted(operations)
    )


def _is_identity(operation, inputs):
    kind = Call(operation, (), ()).kind
    if kind in ("CenterCrop", "RandomCrop", "Resizing"):
        return inputs[0].shape[1:3] == (operation.height, operation.width)
    return kind.startswith("Rand") or kind in _IDENTITIES


def _function_of_lambda(layer, inputs):
    """Returns the graph of the operations that a Lambda calls, or None.

    None, too, where its code calls functions that are none of Keras's.
    """
    inputs = [keras.Input(batch_shape=x.shape) for x in inputs]
    try:
        outputs = layer.function(*inputs, **layer.arguments)
        return keras.Function(inputs, outputs)
    except Exception:  # whatever its code raises
        return None


def _output_tensors(operation, args, kwargs, node, batch):
    """Returns new tensors of the shapes that a call returns, for any batch."""
    call = Call(operation, args, (), kwargs)
    shapes = [x.shape[1:] for x in call.inputs]
    if node and shapes == [x.shape[1:] for x in node.input_tensors]:
        outputs = node.outputs
    else:
        outputs = keras.tree.flatten(operation.compute_output_spec(*args, **kwargs))
    return tuple(
        keras.KerasTensor((None if x.shape[0] == batch else x.shape[0], *x.shape[1:]))
        for x in outputs
    )


def build(graph):
    """Builds a model of copies of the operations, with their weights.

    Args:
        graph: a `Graph`. Names that occur twice are made unique: the later one gets
            the name of its nested model in front, or a number behind it.

    Returns:
        (functional `keras.Model`, {id(tensor of the graph): tensor of the model}).

    Raises:
        UserError: an operation cannot be copied; the message names it.
    """
    names = {graph.input_name}
    copies = {}
    image = keras.Input(graph.input.shape[1:], name=graph.input_name)
    made = {id(graph.input): image}
    for call in graph.calls:
        args, kwargs = call.filled(made)
        copy = copies.get(call.operation)
        if copy is None:
            copy = _copy(call.operation, _unique_name(call, names))
            copies[call.operation] = copy
            outputs = copy(*args, **kwargs)
            if isinstance(copy, keras.Layer):
                copy.set_weights(call.get_weights())
            if hasattr(copy, "finalize_state"):  # Normalization: constants of weights
                copy.finalize_state()
        else:
            outputs = copy(*args, **kwargs)
        for tensor, output in zip(
            call.outputs, keras.tree.flatten(outputs), strict=True
        ):
            made[id(tensor)] = output
    outputs = [made[id(tensor)] for tensor in graph.outputs]
    outputs = outputs[0] if len(outputs) == 1 else outputs
    return keras.Model(image, outputs, name=graph.name), made


def _copy(operation, name):
    """Returns an equal operation without weights."""
    if isinstance(operation, keras.layers.Lambda):  # a config has no globals of code
        output_shape, mask = operation._output_shape, operation.mask
        arguments = operation.arguments
        return keras.layers.Lambda(
            operation.function, output_shape, mask, arguments, name=name
        )
    if isinstance(operation, keras.Layer):
        return _of_config(operation, lambda config: config | {"name": name})
    copy = _of_config(operation, lambda config: config)
    copy.name = name  # Keras 3.10 has no name in the config
    return copy


def _unique_name(call, names):
    """Returns the name of a call's operation, or one like it that is not in names."""
    name = call.operation.name
    if name in names and call.owner:
        name = f"{call.owner}_{name}"
    stem, number = name, 0
    while name in names:
        number += 1
        name = f"{stem}_{number}"
    names.add(name)
    return name


def in_float32(model):
    """Returns a model that computes in float32, whatever it was trained in.

    TensorFlow Lite has no half precision, nor has quantization-aware training.

    Args:
        model: `keras.Model`. Not changed.

    Returns:
        The model itself where no layer computes in half precision, else a copy.

    Raises:
        UserError: it cannot be copied.
    """
    policies = {layer.dtype_policy.compute_dtype for layer in model._flatten_layers()}
    if policies.isdisjoint(_HALF):
        return model

    def changed(config):
        if isinstance(config, list | tuple):
            return type(config)(changed(each) for each in config)
        if not isinstance(config, dict):
            return config
        if config.get("class_name") == "DTypePolicy":
            return config | {"config": {"name": "float32"}}
        config = {key: changed(value) for key, value in config.items()}
        return config | ({"dtype": "float32"} if config.get("dtype") in _HALF else {})

    copy = _of_config(model, changed)
    copy.set_weights(model.get_weights())
    return copy


def _of_config(operation, changed):
    """Returns an operation of the same class, of what `changed` makes of its config."""
    try:
        return type(operation).from_config(changed(operation.get_config()))
    except Exception as error:  # the code of a custom layer may raise anything
        raise UserError(
            f"cannot copy {operation.name!r} ({type(operation).__name__}): "
            f"{first_line(error)}. "
            "Give it a get_config() of what its __init__ takes, or use layers of "
            "keras.layers"
        ) from error


def first_difference(model, calls, before, graph, made, after, tolerance):
    """Compares a rewritten model with the original, layer by layer on equal inputs.

    A difference is then not the rounding of the layers before, which a network can
    amplify far beyond float32's.

    Args:
        model: the original.
        calls: what it does, as `flatten` gave it.
        before: {id(tensor): array} of its input and of what it returned.
        graph: the rewritten `Graph`.
        made: of its model, from `build`.
        after: {id(tensor): array} of its input and of what it should return.
        tolerance: relative to the largest value of each tensor.

    Returns:
        What differs first, as the subject of a sentence, or None.
    """
    known = dict(before)

    def differs(tensor, actual):
        expected = known.setdefault(id(tensor), actual)
        expected, actual = map(keras.ops.convert_to_numpy, (expected, actual))
        difference = np.abs(actual.reshape(expected.shape) - expected).max()
        return not difference <= tolerance * np.abs(expected).max()

    def call_differs(call, operation):
        args, kwargs = call.filled(known)
        outputs = keras.tree.flatten(operation(*args, **kwargs))
        return any([differs(*pair) for pair in zip(call.outputs, outputs, strict=True)])

    # All of them: those behind need what those before return.
    if any([call_differs(call, call.operation) for call in calls]):
        return f"the code of {type(model).__name__}"
    if differs(graph.input, after.pop(id(graph.input))):
        return "what is in front of its first layer"
    known.update(after)
    for call in graph.calls:
        copy = made[id(call.outputs[0])]._keras_history.operation
        if call_differs(call, copy):
            return f"layer {copy.name!r} ({type(copy).__name__})"
    return None
