"""The graph of a functional Keras model, through Keras' private API.

Keras has no public walk over the operations of a model. Tried with Keras 3.10 to 3.15.
"""

import sys

import keras

# ResNet-1202 has 4,200 layers in a row.
RECURSION_LIMIT = 6000


def is_functional(model):
    """Returns whether `run_through_graph` takes a model."""
    return isinstance(model, keras.Model) and hasattr(model, "_run_through_graph")


def run_through_graph(model, inputs, replaced):
    """Runs a model with other operations in the places of its own.

    Args:
        model: functional `keras.Model`.
        inputs: list of what goes in.
        replaced: function of an operation of the model -> what is called instead.

    Returns:
        What comes out, in the structure of the model's outputs.
    """
    return model._run_through_graph(inputs, operation_fn=replaced)


def allow_deep_models():
    """Raises Python's recursion limit, usually 1,000, for models of more layers.

    Keras walks a model from its end by one recursive call for each layer, whenever it
    is built, copied or loaded. That is why the limit stays raised.
    """
    sys.setrecursionlimit(max(sys.getrecursionlimit(), RECURSION_LIMIT))


def nodes(model):
    """Returns the calls of operations: `operation`, `input_tensors`, `outputs`."""
    graph = keras.Model(model.inputs, model.outputs)  # a Sequential shows none
    return [node for nodes in graph._nodes_by_depth.values() for node in nodes]
