"""What to do about an operator that the Edge TPU does not take."""

from keras_resnet.edge.inspect import operators

QUANTIZE = "quantize the model to int8 with export.py --quantize=int8"
INTERFACE = "convert with inference_input_type and inference_output_type tf.uint8"
SIZES = "convert the model with a fixed image size and a batch of 1"
BATCH = "convert the model with a batch of 1"
UNROLL = "build recurrent layers with unroll=True, and leave conditions out"
NORMALIZE = "if it is part of a normalization, use BatchNormalization instead"
RELU = "use ReLU instead"
DIMENSIONS = (
    "build the model without layers that need more than 4 dimensions, such as "
    "GroupNormalization"
)

_REPLACEMENTS = dict.fromkeys(("ELU", "GELU", "HARD_SWISH", "LEAKY_RELU"), RELU)
_REPLACEMENTS |= dict.fromkeys(("NEG", "SQUARE"), NORMALIZE)


def find(operator, graph):
    """Returns the remedy for a `graph.Operator` of a `Graph`, or None if none is known.

    The rules refuse the operator.
    """
    tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor]
    if any(tensor.dynamic for tensor in tensors):
        return SIZES
    if not _is_quantized(graph):
        needs = any(operators.is_float(t) or t.dtype == "INT16" for t in tensors)
        return QUANTIZE if needs else None
    if operator.name in operators.CONVERSIONS:
        outside = {*graph.inputs, *graph.outputs}
        return INTERFACE if outside & set(tensors) else None
    shapes = [tensor.shape for tensor in tensors if not tensor.constant]
    if any(len(shape) > 4 for shape in shapes):
        return DIMENSIONS
    if graph.inputs and graph.inputs[0].shape[:1] > (1,):
        return BATCH
    return _REPLACEMENTS.get(operator.name)


def _is_quantized(graph):
    """Returns whether something is computed in 8 bits."""
    return any(
        tensor.dtype in ("INT8", "UINT8")
        for operator in graph.operators
        if operator.name not in operators.CONVERSIONS
        for tensor in operator.outputs
    )
