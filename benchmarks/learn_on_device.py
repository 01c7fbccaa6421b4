r"""Learns classes from a features file as the device does, and measures what for.

    python -m benchmarks.learn_on_device --data_dir=DIR
    python -m benchmarks.learn_on_device --data_dir=DIR --strangers=PHOTOGRAPHS

DIR holds {train,val}/CLASS/IMAGE. The int8 features of resnet20_224 are exported once,
calibrated with the training images.

- `run_tflite.py --learn` on 20 photographs a class, as a process of its own: its time.
- Draws of 20 and of 5 training photographs a class, and medians of the top-1 on val:
  of the classifier that training fits with --freeze=backbone to their float features,
  and of what the device learns, without and with `unknown`. A wrong `unknown` is a
  mistake. "known" is the share of val that is not answered so.
- "strangers" is the share of --strangers, photographs of other things, that is answered
  with a class. Then 30 of them are in `_none`, and the share is that of the others.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np

import keras_resnet
from benchmarks import turns
from keras_resnet import edge
from keras_resnet.runner import head as heads
from keras_resnet.runner import learning, pipeline
from keras_resnet.runner.learning import KNOWN_SHARE
from keras_resnet.runner.output import Messages
from keras_resnet.runner.sources import class_folders, find_images_below
from keras_resnet.training.transfer import classifier as head_only
from keras_resnet.training.transfer.features import Features
from keras_resnet.weights.tensors import CLASSIFIER

ROOT = pathlib.Path(__file__).resolve().parents[1]
NETWORK, WEIGHTS = "resnet20_224", "imagenet"
COUNTS = (20, 5)  # photographs a class
NOTHING = 30  # strangers in `_none`
BATCH = 32


def export(data_dir, path):
    """Writes the int8 features file."""
    settings = dict(weights=WEIGHTS, features=True, dataset="folder")
    print(edge.export(NETWORK, path, data_dir=data_dir, **settings))


def pictures_of(folder):
    """Returns [(path, class)] of a folder of one folder a class."""
    names = class_folders(folder)
    return [
        (path, number)
        for number, name in enumerate(names)
        for path in find_images_below(os.path.join(folder, name), Messages())
    ]


def seconds_of_learning(model, data_dir):
    """Returns how long the runner learns from the first 20 photographs a class."""
    with tempfile.TemporaryDirectory() as name:
        photos = pathlib.Path(name, "photos")
        for folder in class_folders(data_dir / "train"):
            (photos / folder).mkdir(parents=True)
            found = find_images_below(data_dir / "train" / folder, Messages())
            for path in found[: COUNTS[0]]:
                path = pathlib.Path(path).resolve()
                (photos / folder / path.name).symlink_to(path)
        command = [sys.executable, ROOT / "edge" / "run_tflite.py"]
        command += [f"--model={model}", f"--learn={photos}"]
        command += [f"--classes={name}/mine.json"]
        took = turns.seconds(subprocess.run, command, check=True)
        print(os.path.getsize(f"{name}/mine.json"), "bytes in mine.json")
    return took


def features_of(paths, device, network):
    """Returns (int8 features of the device, float ones, those of mirror images)."""
    pixels = np.stack([pipeline.load_pixels(path, device)[0] for path in paths])
    backbone = keras.Model(network.input, network.get_layer(CLASSIFIER).input)
    floats = [
        np.concatenate(
            [
                backbone.predict_on_batch(network.preprocessing.normalize(images))
                for images in np.array_split(views, -(-len(views) // BATCH))
            ]
        )
        for views in (pixels, pixels[:, :, ::-1])
    ]
    return np.stack([device.outputs(image) for image in pixels]), *floats


def draw(rng, labels, count):
    """Returns the numbers of `count` pictures of each class, in order."""
    chosen = [
        rng.choice(np.flatnonzero(labels == label), count, replace=False)
        for label in np.unique(labels)
    ]
    return np.sort(np.concatenate(chosen))


def measure(rng, train, val, strangers, count):
    """Returns {column: share of 1} of one draw.

    `train` and `val` are (device's features, `Features`), `strangers` the device's.
    """
    drawn = draw(rng, train[1].labels, count)
    device, part = train[0][drawn], train[1].of(drawn)
    labels, classes = part.labels, int(part.labels.max()) + 1
    kernel, bias = head_only.fit(part, head_only.choose(part))
    units = learning.unit(val[1].plain)
    found = {"trained": (units @ kernel + bias).argmax(1)}
    choice = heads.choose_head(device, labels, classes, 1.0)
    found["learned"] = heads.head_scores(val[0], choice.head).argmax(1)
    with_unknown = heads.choose_head(device, labels, classes, KNOWN_SHARE).head
    answers = heads.head_scores(val[0], with_unknown).argmax(1)
    found["with unknown"] = answers
    shares = {name: np.mean(each == val[1].labels) for name, each in found.items()}
    shares["known"] = np.mean(answers < classes)
    if strangers is None:
        return shares
    answers = heads.head_scores(strangers, with_unknown).argmax(1)
    shares["strangers"] = np.mean(answers < classes)
    order = rng.permutation(len(strangers))
    nothing, others = order[:NOTHING], order[NOTHING:]
    device = np.concatenate([device, strangers[nothing]])
    labels = np.concatenate([labels, np.full(NOTHING, classes)])
    head = heads.choose_head(device, labels, classes, KNOWN_SHARE).head
    answers = heads.head_scores(strangers[others], head).argmax(1)
    shares["_none: strangers"] = np.mean(answers < classes)
    answers = heads.head_scores(val[0], head).argmax(1)
    shares["_none: with unknown"] = np.mean(answers == val[1].labels)
    return shares


def main():
    """Exports, learns and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--strangers", type=pathlib.Path, help="folder of photographs")
    parser.add_argument("--draws", type=int, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder, "features.tflite")
        export(arguments.data_dir, model)
        took = seconds_of_learning(model, arguments.data_dir)
        print(f"--learn on {COUNTS[0]} photographs a class: {took:.1f} s")
        device = edge.Classifier(model)
        network = keras_resnet.create_model(NETWORK, weights=WEIGHTS, classes=2)
        splits = {}
        for split in ("train", "val"):
            pictures = pictures_of(arguments.data_dir / split)
            paths, labels = zip(*pictures, strict=True)
            quantized, *floats = features_of(paths, device, network)
            classes = max(labels) + 1
            shown = Features(*floats, np.array(labels), classes, classes)
            splits[split] = quantized, shown
        strangers = (
            arguments.strangers
            and features_of(
                find_images_below(arguments.strangers, Messages()), device, network
            )[0]
        )
    for count in COUNTS:
        rng = np.random.default_rng(0)
        draws = [
            measure(rng, *splits.values(), strangers, count)
            for _ in range(arguments.draws)
        ]
        print(f"{count} a class, medians of {len(draws)} draws")
        for name in draws[0]:
            print(f"  {name:<20}{statistics.median(draw[name] for draw in draws):8.2%}")


if __name__ == "__main__":
    main()
