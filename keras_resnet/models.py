"""ResNet v1: one table of variants, and the entry points that build them.

Source: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition",
arXiv 1512.03385. Table 1 gives the ImageNet networks, section 4.2 the CIFAR
ones. Every model is a flat functional Keras graph of standard layers, so that
each of them can be trained, quantized and converted layer by layer.
"""

import dataclasses
import inspect
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import keras

from keras_resnet import blocks, keras_graph
from keras_resnet.blocks import BASIC, BOTTLENECK
from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import registry, sources

# The widths below 1.
NARROW = (0.25, 0.5, 0.75)

# What every registered weight file was trained with.
REGISTERED = {"shortcut": "B", "residual": True, "width": 1}


@dataclasses.dataclass(frozen=True)
class Family:
    """What the networks for one kind of image share."""

    # Channels of the stem and of the first stage; every later stage doubles them and
    # halves the map.
    filters: int
    image_size: int  # default height and width, in pixels
    classes: int  # default number of classes
    # 7x7 stride-2 convolution and 3x3 stride-2 max pooling (ImageNet), or one 3x3
    # convolution (CIFAR).
    pooled_stem: bool


IMAGENET = Family(filters=64, image_size=224, classes=1000, pooled_stem=True)
CIFAR = Family(filters=16, image_size=32, classes=10, pooled_stem=False)

# name: (family, block, number of blocks in each stage)
VARIANTS = {
    "resnet18": (IMAGENET, BASIC, (2, 2, 2, 2)),
    "resnet34": (IMAGENET, BASIC, (3, 4, 6, 3)),
    "resnet50": (IMAGENET, BOTTLENECK, (3, 4, 6, 3)),
    "resnet101": (IMAGENET, BOTTLENECK, (3, 4, 23, 3)),
    "resnet152": (IMAGENET, BOTTLENECK, (3, 8, 36, 3)),
    # Not of the paper: the network whose features ship, and the same without its last
    # two blocks. Microsoft calls the first one ResNet-18.
    "resnet20_224": (IMAGENET, BASIC, (2, 2, 2, 3)),
    "resnet16_224": (IMAGENET, BASIC, (2, 2, 2, 1)),
    "resnet8": (CIFAR, BASIC, (1, 1, 1)),
    "resnet14": (CIFAR, BASIC, (2, 2, 2)),
    "resnet20": (CIFAR, BASIC, (3, 3, 3)),
    "resnet32": (CIFAR, BASIC, (5, 5, 5)),
    "resnet44": (CIFAR, BASIC, (7, 7, 7)),
    "resnet56": (CIFAR, BASIC, (9, 9, 9)),
    "resnet110": (CIFAR, BASIC, (18, 18, 18)),
    "resnet1202": (CIFAR, BASIC, (200, 200, 200)),
    # Without shortcuts: what the paper holds its networks against (figure 6).
    "plain20": (CIFAR, BASIC, (3, 3, 3)),
    "plain32": (CIFAR, BASIC, (5, 5, 5)),
    "plain44": (CIFAR, BASIC, (7, 7, 7)),
}


def list_models() -> list[str]:
    """Returns the names of the models: for ImageNet, for CIFAR, plain networks.

    The plain networks have no shortcuts; the paper compares its ResNets with them.
    """
    return list(VARIANTS)


def ResNet(
    family: Family,
    block: tuple[int, ...],
    counts: Sequence[int],
    include_top: bool = True,
    weights: str | os.PathLike | None = None,
    input_tensor: keras.KerasTensor | None = None,
    input_shape: Sequence[int | None] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable | None = "softmax",
    name: str = "resnet",
    *,
    shortcut: str = "B",
    stride_on: str | None = None,
    residual: bool = True,
    width: float = 1,
    dropout: float = 0.0,
    output_stride: int | None = None,
) -> keras.Model:
    """Builds a ResNet v1; the entry points (`ResNet50`, ...) call it.

    Args:
        family: `IMAGENET` or `CIFAR`.
        block: `BASIC` or `BOTTLENECK`.
        counts: number of blocks in each stage.
        include_top: whether to end with the classifier.
        weights: `None` for a random initialization; "imagenet", "cifar10" or any
            name of `list_weights()`; "hf://owner/repo" or "hf://owner/repo@revision",
            a hub repository in timm's layout or a run that `keras_resnet.push` put
            there; or the path of a local `.keras`, `.weights.h5`, `.h5`
            (keras.applications) or `.safetensors` (timm, torchvision) file. If
            `classes` is not the default and the file's classifier has another
            number of classes, the classifier starts at random, with a warning.
            "auto" loads the weights that ship with the package if they fit this
            network, and nothing otherwise. Those of `ResNet20_224` and `ResNet16_224`
            have no classifier: they fit without top and with another number of
            classes than the default.
        input_tensor: Keras tensor to use as the image input.
        input_shape: (height, width, channels) without the batch, or channels first
            if `keras.config.image_data_format()` says so. Height and width are at
            least 32 pixels; without top they may be `None`.
        pooling: what follows the last feature map without top: `None`, "avg" or
            "max".
        classes: number of classes.
        classifier_activation: activation of the classifier; `None` returns logits.
        name: name of the model.
        shortcut: the shortcuts of blocks that change the shape (paper, section
            3.3): "A" subsamples and pads channels with zeros, "B" projects. "C"
            projects in every block.
        stride_on: the convolution of a bottleneck that has the stride: "1x1" (v1,
            as published) or "3x3" (v1.5, as torchvision and timm have it). `None`
            takes what `weights` were trained with, and "1x1" without weights.
            Basic blocks always have it on their first convolution.
        residual: `False` leaves all shortcuts out: the paper's plain network.
        width: factor on the channels. A whole number from 1 is one on those inside
            the blocks (Wide ResNet, arXiv 1605.07146): stem and output of a bottleneck
            keep theirs. 0.25, 0.5 and 0.75 scale every layer, for small devices; the
            channels are then rounded to a multiple of 8, as MobileNet's are.
        dropout: rate before the classifier, from 0 to below 1.
        output_stride: 8, 16 or 32: how many times smaller than the image the last
            feature map may become. Later stages are dilated instead of strided,
            with the same weights. `None` dilates none.

    Returns:
        A `keras.Model`. It takes preprocessed images, float (batch, height, width,
        channels), and returns class scores (batch, classes), or without top the
        features. A model with named weights has the attributes `preprocessing`,
        `labels` and `licence`: see `keras_resnet.load`.

    Raises:
        UserError: an argument is out of its range, or the weights cannot be loaded.
            The message ends with what was received.
    """
    _check_one_of("shortcut", shortcut, ("A", "B", "C"))
    _check_one_of("stride_on", stride_on, (None, "1x1", "3x3"))
    _check_one_of("pooling", pooling, (None, "avg", "max"))
    _check_one_of("output_stride", output_stride, (None, 8, 16, 32))
    classes = family.classes if classes is None else classes
    if not isinstance(classes, int) or classes < 1:
        raise UserError(
            f"`classes` must be a whole number from 1. Received: classes={classes!r}"
        )
    width = checked_width(width)
    if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
        raise UserError(
            "`dropout` must be a number from 0 to below 1. "
            f"Received: dropout={dropout!r}"
        )
    inputs = _image_input(family, include_top, input_tensor, input_shape)
    network = (family, block, tuple(counts))
    variant = next((name for name in VARIANTS if VARIANTS[name] == network), None)
    architecture = {"shortcut": shortcut, "residual": residual, "width": width}
    if weights == "auto":
        shipped = registry.shipped(variant)
        fit = (
            shipped is not None
            and architecture == REGISTERED
            and inputs.shape[blocks.channel_axis()] == 3
            and (not include_top or (classes == family.classes) == shipped.classifier)
        )
        weights = shipped.name if fit else None
    if weights is not None:
        weights = sources.resolve(variant, weights)
        if include_top and classes == family.classes:
            _check_classifier(weights, classes)
        stride_on = _stride_for(weights, block, stride_on, architecture)

    stem_filters = blocks.scaled(family.filters, min(width, 1))
    x = blocks.stem(inputs, stem_filters, family.pooled_stem)
    reached = 4 if family.pooled_stem else 1
    dilation = 1
    for stage, count in enumerate(counts):
        stride = 2 if stage else 1
        before = dilation
        if output_stride is not None and reached * stride > output_stride:
            # A stride left out doubles the step of all that comes after it.
            stride, dilation = 1, 2 * dilation
        reached *= stride
        for index in range(count):
            x = blocks.residual_block(
                x,
                kernels=block,
                filters=family.filters * 2**stage,
                stride=1 if index else stride,
                dilations=(dilation if index else before, dilation),
                shortcut=shortcut if residual else None,
                stride_on=stride_on or "1x1",
                width=width,
                name=f"conv{stage + 2}_block{index + 1}",
            )
    x = blocks.head(x, include_top, pooling, classes, classifier_activation, dropout)

    if input_tensor is not None:
        inputs = keras.utils.get_source_inputs(input_tensor)
    keras_graph.allow_deep_models()
    model = keras.Model(inputs, x, name=name)
    if weights is not None:
        sources.load(model, weights, skip_classifier=classes != family.classes)
    return model


def checked_width(width, argument="`width`"):
    """Returns a width, whole numbers as an int; raises `UserError` if it is none."""
    is_number = isinstance(width, int | float) and not isinstance(width, bool)
    if is_number and (width in NARROW or (width >= 1 and width % 1 == 0)):
        return width if width < 1 else int(width)
    raise UserError(
        f"{argument} must be {', '.join(map(str, NARROW))} or a whole number from 1. "
        f"Received: {argument.strip('`')}={width!r}"
    )


def _check_classifier(source, classes):
    """Raises `UserError` if weights are published without their classifier."""
    if isinstance(source, registry.WeightFile) and not source.classifier:
        raise UserError(
            f"The weights {source.name} are features without a classifier: the one "
            f"for {classes:,} classes was never published. Pass include_top=False, "
            "classes=N for a new classifier of N classes, or weights=None. "
            f"Received: classes={classes}"
        )


def _stride_for(source, block, stride_on, architecture):
    """Returns `stride_on` of a weight file; raises `UserError` if arguments differ."""
    if isinstance(source, registry.WeightFile):
        for flag, needed in REGISTERED.items():
            if architecture[flag] != needed:
                raise UserError(
                    f"The weights {source.name} are for {flag}={needed!r}; other "
                    "networks start with weights=None. "
                    f"Received: {flag}={architecture[flag]!r}"
                )
    if block == BASIC or stride_on is None:
        return source.stride_on
    if source.stride_known and stride_on != source.stride_on:
        raise UserError(
            f"These weights are for stride_on={source.stride_on!r}; with the other "
            "placement they load, and predict worse. "
            f"Received: stride_on={stride_on!r}"
        )
    return stride_on


def _check_one_of(argument, value, choices):
    if value not in choices:
        raise UserError(
            f"`{argument}` must be one of {', '.join(map(repr, choices))}. "
            f"Received: {argument}={value!r}"
        )


def _image_input(family, include_top, input_tensor, input_shape):
    if input_tensor is not None:
        if not keras.utils.is_keras_tensor(input_tensor):
            raise UserError(
                "`input_tensor` must be a Keras tensor, as `keras.Input` returns. "
                f"Received: {type(input_tensor).__name__}"
            )
        return input_tensor
    channels_last = blocks.channel_axis() == -1
    if input_shape is None:
        size = family.image_size if include_top else None
        input_shape = (size, size, 3) if channels_last else (3, size, size)
    if not _is_image_shape(input_shape, channels_last, open_sides=not include_top):
        raise UserError(
            "`input_shape` must be three whole numbers without the batch, height and "
            "width at least 32 (or None with include_top=False). "
            f"Received: input_shape={input_shape!r}"
        )
    return keras.Input(input_shape)


def _is_image_shape(shape, channels_last, open_sides):
    if not isinstance(shape, tuple | list) or len(shape) != 3:
        return False
    *sides, channels = shape if channels_last else (*shape[1:], shape[0])
    return (isinstance(channels, int) and channels > 0) and all(
        open_sides if side is None else isinstance(side, int) and side >= 32
        for side in sides
    )


def feature_maps(model: keras.Model) -> keras.Model:
    """Returns a model of the maps between stages, for detection or segmentation.

    Args:
        model: a model of the zoo, with or without top, from an entry point or a
            `.keras` file. A model around one has no such maps.

    Returns:
        A `keras.Model` that shares the layers of `model`. It takes the same images
        and returns a dictionary of maps: "C2", "C3", "C4" and "C5" are 4, 8, 16 and
        32 times smaller than the image. Networks for CIFAR have "C2", "C3" and "C4",
        1, 2 and 4 times smaller. `output_stride` of the entry point limits these
        factors.

    Raises:
        UserError: the model is none of the zoo.
    """
    ends = {}
    for layer in model.layers:
        match = re.fullmatch(r"conv(\d)_block\d+_out", layer.name)
        if match:
            ends[f"C{match[1]}"] = layer.output
    if not ends:
        raise UserError(
            "`model` must be one of this zoo, not a model around one. "
            f"Received: {model.name!r}"
        )
    return keras.Model(model.input, ends, name=f"{model.name}_feature_maps")


def create_model(name: str, /, **arguments: Any) -> keras.Model:
    """Builds a model of the zoo by its name.

    Args:
        name: one of `list_models()`, such as "resnet50".
        **arguments: those of its entry point: `create_model("resnet50", classes=2)`
            is `ResNet50(classes=2)`.

    Returns:
        A `keras.Model`.

    Raises:
        UserError: there is no such model, or an argument is wrong.
    """
    if not isinstance(name, str) or name not in _ENTRY_POINTS:
        raise unknown("model", name, _ENTRY_POINTS)
    return _ENTRY_POINTS[name](**arguments)


class EntryPoint(Protocol):
    """What type checkers know of `ResNet50` and the others; `ResNet` documents it."""

    def __call__(  # noqa: D102
        self,
        include_top: bool = True,
        weights: str | os.PathLike | None = "auto",
        input_tensor: keras.KerasTensor | None = None,
        input_shape: Sequence[int | None] | None = None,
        pooling: str | None = None,
        classes: int = ...,
        classifier_activation: str | Callable | None = "softmax",
        name: str = ...,
        *,
        shortcut: str = "B",
        stride_on: str | None = None,
        residual: bool = True,
        width: float = 1,
        dropout: float = 0.0,
        output_stride: int | None = None,
    ) -> keras.Model: ...


# Name of a model: the function that builds it.
_ENTRY_POINTS: dict[str, EntryPoint] = {}


def _entry_point(
    variant: str,
    default_weights: str = "auto",
    note: str = "",
) -> EntryPoint:
    family, block, counts = VARIANTS[variant]
    is_plain = variant.startswith("plain")

    def build(
        include_top: bool = True,
        weights: str | os.PathLike | None = default_weights,
        input_tensor: keras.KerasTensor | None = None,
        input_shape: Sequence[int | None] | None = None,
        pooling: str | None = None,
        classes: int = family.classes,
        classifier_activation: str | Callable | None = "softmax",
        name: str = variant,
        *,
        shortcut: str = "B",
        stride_on: str | None = None,
        residual: bool = not is_plain,
        width: float = 1,
        dropout: float = 0.0,
        output_stride: int | None = None,
    ) -> keras.Model:
        """Builds a model of the zoo; `ResNet` documents the arguments."""
        return ResNet(
            family,
            block,
            counts,
            include_top,
            weights,
            input_tensor,
            input_shape,
            pooling,
            classes,
            classifier_activation,
            name,
            shortcut=shortcut,
            stride_on=stride_on,
            residual=residual,
            width=width,
            dropout=dropout,
            output_stride=output_stride,
        )

    # Written as the paper writes them: ResNet-20, plain-20.
    build.__name__ = build.__qualname__ = variant.replace("resnet", "ResNet")
    build.__doc__ = (
        f"Builds {build.__name__} for {family.image_size}x{family.image_size} images "
        f"and {family.classes} classes.\n\n{note}"
        "The first arguments are those of `keras.applications.ResNet50`; those that\n"
        f"follow `name` are given by keyword.\n\nArgs:\n{_SHARED_ARGUMENTS}"
    )
    _ENTRY_POINTS[variant] = build
    return build


# What the docstring of `ResNet` says after its first three arguments; python -OO
# drops docstrings.
_SHARED_ARGUMENTS = inspect.cleandoc(ResNet.__doc__ or "").partition("each stage.\n")[2]

_FEATURES = """\
Basic blocks {counts} on the stem for ImageNet{what}. The weights
"imagenet" are Microsoft's features, without a classifier: they are loaded unless you
ask for the default of 1000 classes.

"""

ResNet18 = _entry_point("resnet18", "imagenet")
ResNet34 = _entry_point("resnet34", "imagenet")
ResNet50 = _entry_point("resnet50", "imagenet")
ResNet101 = _entry_point("resnet101", "imagenet")
ResNet152 = _entry_point("resnet152", "imagenet")
ResNet20_224 = _entry_point(
    "resnet20_224",
    note=_FEATURES.format(
        counts="(2, 2, 2, 3)", what=", which Microsoft calls ResNet-18"
    ),
)
ResNet16_224 = _entry_point(
    "resnet16_224",
    note=_FEATURES.format(
        counts="(2, 2, 2, 1)", what=": ResNet20_224 without its last two blocks"
    ),
)
ResNet8 = _entry_point("resnet8")
ResNet14 = _entry_point("resnet14")
ResNet20 = _entry_point("resnet20")
ResNet32 = _entry_point("resnet32")
ResNet44 = _entry_point("resnet44")
ResNet56 = _entry_point("resnet56")
ResNet110 = _entry_point("resnet110")
ResNet1202 = _entry_point("resnet1202")
plain20 = _entry_point("plain20")
plain32 = _entry_point("plain32")
plain44 = _entry_point("plain44")
