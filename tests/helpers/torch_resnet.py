"""ResNet v1 and v1.5 in plain PyTorch, with the parameter names of torchvision."""

import numpy as np
import torch
from torch import nn

COUNTS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}


class Block(nn.Module):
    def __init__(self, channels, filters, stride, bottleneck, stride_on):
        super().__init__()
        out = filters * 4 if bottleneck else filters
        if bottleneck:
            first, second = (stride, 1) if stride_on == "1x1" else (1, stride)
            self.conv1 = nn.Conv2d(channels, filters, 1, first, bias=False)
            self.bn1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, second, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(filters)
            self.conv3 = nn.Conv2d(filters, out, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(out)
        else:
            self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(filters)
            self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(filters)
        self.bottleneck = bottleneck
        self.downsample = None
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.bottleneck:
            y = self.bn3(self.conv3(torch.relu(y)))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class TorchResNet(nn.Module):
    def __init__(self, counts, classes=1000, bottleneck=False, stride_on="3x3"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, count in enumerate(counts):
            filters = 64 * 2**stage
            blocks = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(Block(channels, filters, stride, bottleneck, stride_on))
                channels = filters * 4 if bottleneck else filters
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class CifarBlock(nn.Module):
    """Two 3x3 convolutions, with the shortcut of option A."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.stride, self.missing = stride, filters - channels

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        x = x[:, :, :: self.stride, :: self.stride]
        zeros = x.new_zeros(len(x), self.missing // 2, *x.shape[2:])
        return torch.relu(y + torch.cat([zeros, x, zeros], 1))


class CifarResNet(nn.Module):
    """The paper's section 4.2, with the names of akamaster/pytorch_resnet_cifar10."""

    def __init__(self, depth):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels = 16
        for stage in range(3):
            filters = 16 * 2**stage
            blocks = []
            for index in range((depth - 2) // 6):
                stride = 2 if stage and not index else 1
                blocks.append(CifarBlock(channels, filters, stride))
                channels = filters
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))


def random_resnet(depth, seed=0, **arguments):
    """A network in evaluation mode with random parameters and statistics."""
    bottleneck = depth >= 50
    return randomize(
        TorchResNet(COUNTS[depth], bottleneck=bottleneck, **arguments), seed
    )


def randomize(net, seed=0):
    """Gives a network random parameters and statistics; puts it in evaluation mode."""
    net.eval()
    rng = np.random.default_rng(seed)
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        if value.ndim > 1:
            fan_in = np.prod(value.shape[1:])
            new = rng.normal(0, 1 / np.sqrt(fan_in), value.shape)
        elif name.endswith("running_var") or (
            name.endswith(".weight") and value.ndim == 1
        ):
            new = rng.uniform(0.5, 1.5, value.shape)
        else:
            new = rng.normal(0, 0.1, value.shape)
        value.copy_(torch.from_numpy(new))
    return net


def logits(net, images):
    """Scores (batch, classes) of images (batch, height, width, 3), as arrays."""
    with torch.no_grad():
        x = torch.from_numpy(np.float32(images).transpose(0, 3, 1, 2).copy())
        return net(x).numpy()
