"""JPEGs a second: our training pipeline, a naive tf.data one, and one of PIL.

    python -m benchmarks.input_pipeline --photos=DIR    # JPEGs, in any folders

Each makes normalized batches of 224x224 crops, flipped by chance. The files that
are used are those whose longer side is 500 pixels, as most of ImageNet's are,
unchanged and repeated. Rounds alternate; ratios are medians of rounds.
"""

import argparse
import concurrent.futures
import dataclasses
import io
import itertools
import os
import pathlib
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import PIL.Image
import tensorflow as tf

from benchmarks import turns
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.training import recipes
from keras_resnet.training.data import batching, datasets

SIZE, BATCH, CLASSES = 224, 64, 1000
PREPROCESSING = Preprocessing((SIZE, SIZE), **NORMALIZATIONS["torch"])
RECIPE = dataclasses.replace(recipes.RECIPES["imagenet"], epochs=1000, batch_size=BATCH)
MEAN, STD = PREPROCESSING.mean_rgb_255, PREPROCESSING.std_rgb_255


def ours(files):
    """The pipeline of training/train.py."""
    examples = tf.data.Dataset.from_tensor_slices((files, np.arange(len(files))))
    repeated = 4096 // len(files) * len(files)
    split = datasets.Split(repeated, lambda: examples.repeat(repeated // len(files)))
    labels = tuple(str(label) for label in range(CLASSES))
    dataset = datasets.Dataset("photos", labels, split, split, fingerprint={})
    return iter(batching.train_batches(dataset, PREPROCESSING, RECIPE, 0))


def naive(files):
    """What most tutorials show: decode all, crop, resize, flip, normalize."""

    def example(encoded, label):
        image = tf.io.decode_jpeg(encoded, channels=3)
        begin, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((0, 0, 4)),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.slice(image, begin, extent)
        image = tf.image.resize(image, (SIZE, SIZE))
        image = tf.image.random_flip_left_right(image)
        return (image - MEAN) / STD, tf.one_hot(label, CLASSES)

    examples = tf.data.Dataset.from_tensor_slices((files, np.arange(len(files))))
    examples = examples.repeat().shuffle(4096)
    return iter(
        examples.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(BATCH, drop_remainder=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def pil(files):
    """PIL in a thread for each core: it lets go of Python while it decodes."""
    rng = np.random.default_rng(0)

    def example(encoded):
        image = PIL.Image.open(io.BytesIO(encoded)).convert("RGB")
        width, height = image.size
        area = width * height * rng.uniform(0.08, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        w, h = min(width, (area * ratio) ** 0.5), min(height, (area / ratio) ** 0.5)
        left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
        image = image.resize(
            (SIZE, SIZE),
            PIL.Image.Resampling.BILINEAR,
            box=(left, top, left + w, top + h),
        )
        if rng.random() < 0.5:
            image = image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)
        return (np.asarray(image, np.float32) - np.float32(MEAN)) / np.float32(STD)

    order = itertools.cycle(enumerate(files))
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        while True:
            batch = list(itertools.islice(order, BATCH))
            images = threads.map(example, [encoded for _, encoded in batch])
            labels = np.eye(CLASSES, dtype=np.float32)[[label for label, _ in batch]]
            yield np.stack(list(images)), labels


def measure(batches, seconds):
    """Returns images a second, and milliseconds of all cores for an image."""
    started, used, images = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - started < seconds:
        images += len(next(batches)[0])
    used = time.process_time() - used
    return images / (time.perf_counter() - started), 1000 * used / images


def measure_anew(make, files, seconds):
    """Makes a pipeline and measures it: one that waits would fill its queues."""
    batches = make(files)
    measure(batches, 1.0)  # fills the buffers and lets tf.data tune itself
    return measure(batches, seconds)


def main():
    """Prints images a second, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    files = []
    for path in sorted(arguments.photos.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg"):
            with PIL.Image.open(path) as image:
                if image.format == "JPEG" and max(image.size) == 500:
                    files.append(path.read_bytes())
    if not files:
        parser.error(
            "--photos must hold JPEGs of 500 pixels on the longer side. Received: "
            f"{str(arguments.photos)!r}"
        )
    size = statistics.mean(map(len, files)) / 1000
    print(f"{len(files)} JPEGs of {size:.0f} kB, {os.cpu_count()} cores")

    found = turns.in_turns(
        lambda make: measure_anew(make, files, arguments.seconds),
        {make.__name__: make for make in (ours, naive, pil)},
        arguments.rounds,
        warm_up=1,
    )
    found = {name: list(zip(*pairs, strict=True)) for name, pairs in found.items()}
    our_rates, our_costs = found["ours"]
    for name, (rates, costs) in found.items():
        print(
            f"{name:<6}{statistics.median(rates):6.0f} images/s"
            f"{statistics.median(costs):6.2f} ms of a core for each; ours is "
            f"{turns.ratio(our_rates, rates):.2f}x as fast, and "
            f"{turns.ratio(costs, our_costs):.2f}x by the work"
        )


if __name__ == "__main__":
    main()
