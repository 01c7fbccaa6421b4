"""The layers of a ResNet: stem, blocks and head, on one Keras tensor after another.

Their names follow `keras.applications.resnet` and are part of the format of weight
files: once released they never change.
"""

import keras
from keras import layers

# A block is the kernel sizes of its convolutions (paper, figure 5).
BASIC = (3, 3)
BOTTLENECK = (1, 3, 1)
# A bottleneck's last convolution is this much wider than its first two.
EXPANSION = 4

# A width below 1 makes channels a multiple of this, as MobileNet does.
CHANNEL_MULTIPLE = 8

# torch and Caffe use these; the defaults of Keras are 1e-3 and 0.99.
BN_EPSILON = 1e-5
BN_MOMENTUM = 0.9


def channel_axis():
    """Returns the axis of the channels in the data format of Keras."""
    return -1 if keras.config.image_data_format() == "channels_last" else 1


def scaled(channels, width):
    """Returns a number of channels times a width.

    With a width below 1 it is the nearest multiple of 8, at least 8, and not less than
    nine tenths of the product: `make_divisible(x, 8)` of MobileNet (Sandler et al.,
    arXiv 1801.04381, as TensorFlow's models have it).
    """
    if width >= 1:
        return channels * width
    product = channels * width
    steps = max(1, int(product / CHANNEL_MULTIPLE + 0.5))
    if steps * CHANNEL_MULTIPLE < 0.9 * product:
        steps += 1
    return steps * CHANNEL_MULTIPLE


def conv_bn(x, filters, kernel, stride, name, dilation=1):
    """Convolution and batch normalization, `name`_conv and `name`_bn."""
    padding = "same"
    if stride > 1 and kernel > 1:
        # "same" would pad (0, 1) on even sizes: one pixel off the published
        # weights, which pad symmetrically.
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}_pad")(x)
        padding = "valid"
    x = layers.Conv2D(
        filters,
        kernel,
        strides=stride,
        padding=padding,
        dilation_rate=dilation,
        use_bias=False,
        kernel_initializer="he_uniform",
        name=f"{name}_conv",
    )(x)
    return layers.BatchNormalization(
        axis=channel_axis(),
        momentum=BN_MOMENTUM,
        epsilon=BN_EPSILON,
        name=f"{name}_bn",
    )(x)


def stem(x, filters, pooled):
    """The first convolution: 7x7 with stride 2 and pooled, or 3x3 with stride 1."""
    if not pooled:
        x = conv_bn(x, filters, kernel=3, stride=1, name="conv1")
        return layers.Activation("relu", name="conv1_relu")(x)
    x = conv_bn(x, filters, kernel=7, stride=2, name="conv1")
    x = layers.Activation("relu", name="conv1_relu")(x)
    # Zeros pad like minus infinity here: nothing after a ReLU is below them.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    return layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)


def residual_block(
    x, kernels, filters, stride, dilations, shortcut, stride_on, width, name
):
    """One block (paper, figure 5).

    Args:
        x: Keras tensor of an image.
        kernels: `BASIC` or `BOTTLENECK`.
        filters: channels of its 3x3 convolutions at width 1.
        stride: 2 where it halves the map, else 1.
        dilations: dilation of its 3x3 convolutions (up to the stride, after it).
        shortcut: "A", "B" or "C" (paper, section 3.3), or `None` for none.
        stride_on: "1x1" or "3x3": which convolution of a bottleneck has the stride.
        width: factor on the channels inside; below 1 on those of the output too.
        name: prefix of the names of its layers.
    """
    widths = [scaled(filters, width)] * len(kernels)
    strided = 0
    if kernels == BOTTLENECK:
        widths[-1] = scaled(filters * EXPANSION, min(width, 1))
        strided = 0 if stride_on == "1x1" else 1

    branch = x
    if shortcut is not None:
        branch = _shortcut(x, widths[-1], stride, shortcut, name)
    last = len(kernels)
    for i, (kernel, channels) in enumerate(zip(kernels, widths, strict=True), 1):
        x = conv_bn(
            x,
            channels,
            kernel,
            stride=stride if i - 1 == strided else 1,
            dilation=1 if kernel == 1 else dilations[i - 1 > strided],
            name=f"{name}_{i}",
        )
        if i < last:
            x = layers.Activation("relu", name=f"{name}_{i}_relu")(x)
    if shortcut is not None:
        x = layers.Add(name=f"{name}_add")([branch, x])
    return layers.Activation("relu", name=f"{name}_out")(x)


def _shortcut(x, filters, stride, shortcut, name):
    missing = filters - x.shape[channel_axis()]
    if shortcut == "C" or (shortcut == "B" and (stride > 1 or missing)):
        return conv_bn(x, filters, kernel=1, stride=stride, name=f"{name}_0")
    if stride > 1:
        x = layers.MaxPooling2D(1, strides=stride, name=f"{name}_0_pool")(x)
    if missing:
        # Pads the channels, with the one padding layer that tf_keras and TFLite
        # carry too: given the other data format, it takes them for a side.
        channels = (missing // 2, missing - missing // 2)
        channels_last = channel_axis() == -1
        x = layers.ZeroPadding2D(
            ((0, 0), channels) if channels_last else (channels, (0, 0)),
            data_format="channels_first" if channels_last else "channels_last",
            name=f"{name}_0_pad",
        )(x)
    return x


def head(x, include_top, pooling, classes, classifier_activation, dropout):
    """The classifier, or without top what `pooling` says."""
    if include_top:
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        if dropout:
            x = layers.Dropout(dropout, name="dropout")(x)
        return layers.Dense(
            classes,
            activation=classifier_activation,
            kernel_initializer="he_uniform",
            # Softmax in half precision loses the loss's digits.
            dtype=keras.config.dtype_policy().variable_dtype,
            name="predictions",
        )(x)
    if pooling == "avg":
        return layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if pooling == "max":
        return layers.GlobalMaxPooling2D(name="max_pool")(x)
    return x
