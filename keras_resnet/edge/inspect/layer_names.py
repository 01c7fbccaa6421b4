"""Which layers of a Keras model a tensor of a file may belong to.

The converter names a tensor by the path of the operation in TensorFlow's graph, such as
"resnet8_1/conv1_relu_1/Relu;resnet8_1/conv1_bn_1/add". A part of it is mostly, but not
always, the name of a layer.
"""

import re


def of_tensor(name, layers):
    """Returns the names among `layers` that the name of a tensor holds, in order.

    Of several names joined by ";", only the first counts: the others are fused.
    """
    parts = name.split(";")[0].split("/")
    found = [each for part in parts for each in _possible(part) if each in layers]
    return list(dict.fromkeys(found))


def _possible(part):
    """Yields the layers that a part of a name may mean.

    TensorFlow appends numbers to make names unique, and quantization-aware layers are
    called quant_<layer>.
    """
    for name in (part, part.removeprefix("quant_")):
        yield name
        yield re.sub(r"_\d+$", "", name)
