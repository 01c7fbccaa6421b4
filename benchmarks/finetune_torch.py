"""Fine-tunes a ResNet in plain PyTorch, as the tutorial of transfer learning does.

    python benchmarks/finetune_torch.py --data_dir=DIR --weights=FILE
    python benchmarks/finetune_torch.py --data_dir=DIR --weights=FILE --freeze=backbone

https://docs.pytorch.org/tutorials/beginner/transfer_learning_tutorial.html: SGD with a
rate of 0.001 and momentum 0.9, the rate times 0.1 every 7 epochs, batches of 4, random
crops and mirror images. DIR holds {train,val}/CLASS/IMAGE. FILE is a safetensors file
without a classifier that has the names of torchvision.

Prints a line of JSON after each epoch: its number, the loss on the training pictures
and top-1 on "val" (a share of 1), and the seconds since the beginning, without the
import of PyTorch. Needs torch, safetensors and Pillow, and nothing of this project: it
is what ours is compared with.
"""

import argparse
import json
import math
import pathlib
import random
import time

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

SIZE = 224
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Of ImageNet.
MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


class Block(nn.Module):
    """A basic block."""

    def __init__(self, channels, filters, stride):
        """Has a projection where the shape changes."""
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.downsample = None
        if stride != 1 or channels != filters:
            projection = nn.Conv2d(channels, filters, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(filters))

    def forward(self, x):
        """Returns the activations behind the block."""
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A ResNet of basic blocks, `counts` of them in each stage."""

    def __init__(self, counts, classes):
        """Starts from random weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels = 64
        for stage, count in enumerate(counts):
            blocks = []
            for index in range(count):
                stride = 2 if stage and not index else 1
                blocks.append(Block(channels, 64 * 2**stage, stride))
                channels = 64 * 2**stage
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(channels, classes)

    def forward(self, x):
        """Returns logits (batch, classes) of images (batch, 3, height, width)."""
        x = self.maxpool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def load(net, path):
    """Gives a network the weights of a file, but for its classifier."""
    missing, unknown = net.load_state_dict(load_file(path), strict=False)
    needed = {name for name in missing if not name.endswith("num_batches_tracked")}
    wrong = (needed ^ {"fc.weight", "fc.bias"}) | set(unknown)
    if wrong:
        raise SystemExit(f"error: {path} is of another network: {min(wrong)}")


def random_resized_crop(image):
    """Returns torchvision's RandomResizedCrop(224) of a PIL image."""
    width, height = image.size
    for _ in range(10):
        area = width * height * random.uniform(0.08, 1)
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            break
    else:  # the largest of an allowed shape, from the centre
        w, h = min(width, round(height * 4 / 3)), min(height, round(width * 4 / 3))
        left, top = (width - w) // 2, (height - h) // 2
    crop = image.crop((left, top, left + w, top + h))
    return crop.resize((SIZE, SIZE), Image.Resampling.BILINEAR)


def random_view(image):
    """Returns a random crop, mirrored in every second case."""
    image = random_resized_crop(image)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image


def centre_view(image):
    """Returns torchvision's Resize(256) and CenterCrop(224) of a PIL image."""
    width, height = (int(256 * side / min(image.size)) for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = round((width - SIZE) / 2), round((height - SIZE) / 2)
    return image.crop((left, top, left + SIZE, top + SIZE))


class Pictures(torch.utils.data.Dataset):
    """The pictures of a folder of classes, as (3, 224, 224) and a label."""

    def __init__(self, folder, view):
        """Finds the pictures; `view` is a function from PIL image to PIL image."""
        self.classes = sorted(p.name for p in folder.iterdir() if p.is_dir())
        self._pictures = [
            (path, label)
            for label, name in enumerate(self.classes)
            for path in sorted((folder / name).rglob("*"))
            if path.suffix.lower() in SUFFIXES
        ]
        self._view = view

    def __len__(self):
        """Returns the number of pictures."""
        return len(self._pictures)

    def __getitem__(self, index):
        """Decodes a picture."""
        path, label = self._pictures[index]
        with Image.open(path) as file:
            image = self._view(file.convert("RGB"))
        pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        pixels = pixels.reshape(SIZE, SIZE, 3).permute(2, 0, 1) / 255
        return (pixels - MEAN) / STD, label


def top1(net, batches):
    """Returns the share of pictures that are right."""
    net.eval()
    right = count = 0
    with torch.no_grad():
        for images, labels in batches:
            right += (net(images).argmax(1) == labels).sum().item()
            count += len(labels)
    return right / count


def main():
    """Trains as the flags say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--blocks", default="2,2,2,3", help="in each stage")
    parser.add_argument("--freeze", choices=["none", "backbone"], default="none")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    started = time.perf_counter()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)  # the workers seed `random` from it

    train, val = (
        torch.utils.data.DataLoader(
            Pictures(arguments.data_dir / name, view),
            batch_size=4,
            shuffle=True,
            num_workers=arguments.threads,
        )
        for name, view in (("train", random_view), ("val", centre_view))
    )
    counts = [int(count) for count in arguments.blocks.split(",")]
    net = ResNet(counts, len(train.dataset.classes))
    load(net, arguments.weights)
    if arguments.freeze == "backbone":
        net.requires_grad_(False)
        net.fc.requires_grad_(True)
    learning = [value for value in net.parameters() if value.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.001, momentum=0.9)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    for epoch in range(1, arguments.epochs + 1):
        net.train()
        total = 0.0
        for images, labels in train:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        schedule.step()
        result = {
            "epoch": epoch,
            "loss": total / len(train.dataset),
            "top1": top1(net, val),
            "seconds": time.perf_counter() - started,
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
