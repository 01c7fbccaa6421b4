r"""Makes small sets of pictures that no recipe was tuned on, as folders.

    python -m benchmarks.small_sets --output=DIR [--data_dir=TFDS] [--photographs=DIR]
    python -m benchmarks.finetune --data_dir=DIR/digits,DIR/crops,DIR/cifar10

DIR/SET/{train,val}/CLASS/N.png:

    digits   scikit-learn's digits, 40 a class and the 360 held-out ones, enlarged
    crops    crops of photographs, one class each: 40 of the left half to train, 20 of
             the right half held out; scikit-learn's two sample photographs, or ten of
             those below --photographs
    cifar10  40 a class of CIFAR-10 and 50 a class of its test images, enlarged; only
             with --data_dir, where tensorflow-datasets has it

A set that is there is left as it is.
"""

import io
import pathlib
import sys
import tempfile

import numpy as np
from absl import flags
from PIL import Image

from keras_resnet import console
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS

SIDE = 256  # of the enlarged images
TRAIN, HELD_OUT = 40, 50  # a class, at most
CROPS_HELD_OUT = 20
PHOTOGRAPHS = 10
SUFFIXES = (".jpg", ".jpeg", ".png")


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("output", None, "Folder of the sets.", required=True)
    flags.DEFINE_string("data_dir", None, "Where CIFAR-10 lies.")
    flags.DEFINE_string("photographs", None, "Folder of photographs, at any depth.")


def main():
    """Makes the sets as the flags say."""
    console.import_tensorflow()
    make_sets(pathlib.Path(FLAGS.output), FLAGS.data_dir, FLAGS.photographs)


def make_sets(output, data_dir=None, photos=None):
    """Makes the sets that are missing in a folder; prints what there is."""
    from keras_resnet.training.data import sources

    makers = {
        "digits": lambda: enlarged(sources.load("digits")),
        "crops": lambda: crops(photographs(photos)),
    }
    if data_dir:
        makers["cifar10"] = lambda: enlarged(sources.load("cifar10", data_dir))
    for name, make in makers.items():
        if (output / name).exists():
            print(f"{output / name} is there")
            continue
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output) as folder:
            number = write(pathlib.Path(folder, name), make())
            pathlib.Path(folder, name).rename(output / name)  # whole or not at all
        print(f"{output / name}: {number} pictures")


def write(folder, pictures):
    """Writes (part, class, PIL image) as PART/CLASS/N.png; returns their number."""
    number = 0
    for number, (part, label, image) in enumerate(pictures, 1):
        path = folder / part / label / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path, compress_level=1)  # the quickest
    return number


def enlarged(dataset):
    """Yields the first images of each class of a `Dataset` of small ones."""
    for part, split, most in (
        ("train", dataset.train, TRAIN),
        ("val", dataset.held_out, HELD_OUT),
    ):
        taken = dict.fromkeys(dataset.labels, 0)
        for encoded, index in split.read().as_numpy_iterator():
            label = dataset.labels[index]
            if taken[label] == most:
                continue
            taken[label] += 1
            with Image.open(io.BytesIO(encoded)) as image:
                large = image.convert("RGB").resize((SIDE, SIDE), Image.BICUBIC)
            yield part, label, large
            if min(taken.values()) == most:
                break


def photographs(folder):
    """Returns {name: PIL image} of photographs, spread evenly over a folder's."""
    if folder is None:
        from sklearn.datasets import load_sample_images

        found = load_sample_images()
        names = [pathlib.Path(path).stem for path in found.filenames]
        return dict(zip(names, map(Image.fromarray, found.images), strict=True))
    paths = sorted(
        path
        for path in pathlib.Path(folder).rglob("*")
        if path.suffix.lower() in SUFFIXES
    )
    if len(paths) < 2:
        raise UserError(
            f"--photographs needs two at least ({', '.join(SUFFIXES)}). Received: "
            f"{len(paths)} in {folder}"
        )
    places = np.linspace(0, len(paths) - 1, min(PHOTOGRAPHS, len(paths))).astype(int)
    chosen = [paths[place] for place in places]
    names = [
        "-".join(path.relative_to(folder).with_suffix("").parts) for path in chosen
    ]
    return dict(zip(names, map(Image.open, chosen), strict=True))


def crops(images):
    """Yields square crops of the halves of {name: PIL image}, each a class."""
    rng = np.random.default_rng(0)
    for label, image in images.items():
        image = image.convert("RGB")
        half, height = image.width // 2, image.height
        for part, left, number in (
            ("train", 0, TRAIN),
            ("val", image.width - half, CROPS_HELD_OUT),
        ):
            for _ in range(number):
                side = int(min(half, height) * rng.uniform(0.4, 0.8))
                x = left + rng.integers(half - side + 1)
                y = rng.integers(height - side + 1)
                yield part, label, image.crop((x, y, x + side, y + side))


if __name__ == "__main__":
    app.run(sys.modules[__name__])
