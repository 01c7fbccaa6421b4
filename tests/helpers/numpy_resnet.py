"""A ResNet of basic blocks in NumPy, from a state dict with torchvision's names.

Written from the paper, without a framework and without the code under test.
"""

import numpy as np

EPSILON = 1e-5


def features(state, counts, images):
    """Pooled features (batch, channels) of images (batch, height, width, 3).

    `counts` is the number of blocks in each stage.
    """
    x = np.float64(images).transpose(0, 3, 1, 2)
    x = np.maximum(conv_bn(state, x, "conv1", "bn1", stride=2), 0)
    x = windows(x, size=3, stride=2, padding=1).max((-2, -1))
    for stage, count in enumerate(counts, 1):
        for index in range(count):
            name = f"layer{stage}.{index}"
            stride = 2 if stage > 1 and index == 0 else 1
            shortcut = x
            if f"{name}.downsample.0.weight" in state:
                names = f"{name}.downsample.0", f"{name}.downsample.1"
                shortcut = conv_bn(state, x, *names, stride)
            y = conv_bn(state, x, f"{name}.conv1", f"{name}.bn1", stride)
            y = conv_bn(state, np.maximum(y, 0), f"{name}.conv2", f"{name}.bn2", 1)
            x = np.maximum(y + shortcut, 0)
    return x.mean((2, 3))


def windows(x, size, stride, padding):
    """Windows (batch, channels, height, width, size, size), zeros around the image."""
    sides = (padding, padding)
    x = np.pad(x, ((0, 0), (0, 0), sides, sides))
    x = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
    return x[:, :, ::stride, ::stride]


def conv_bn(state, x, conv, norm, stride):
    kernel = np.float64(state[f"{conv}.weight"])
    size = kernel.shape[-1]
    patches = windows(x, size, stride, size // 2)
    x = np.tensordot(patches, kernel, ((1, 4, 5), (1, 2, 3))).transpose(0, 3, 1, 2)
    gamma, beta, mean, variance = (
        np.float64(state[f"{norm}.{name}"])[:, None, None]
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    return gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta
