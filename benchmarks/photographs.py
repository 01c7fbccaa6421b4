"""Photographs of phones a second: training's input, evaluation's, and their memory.

    python -m benchmarks.photographs

Makes JPEGs of 12 megapixels with an EXIF orientation, which compress as those of
phones do, and reads them for a network of 224x224 pixels. Each way to read them runs
in a process of its own, so that its peak memory can be told:

- whole: all pixels are decoded in every epoch, as version 0.1 did. Files without
  `reduced_decoding` mean 8, at which 12 megapixels are not reduced.
- reduced: `reduced_decoding` of 2, and what is decoded is kept for later epochs.
"""

import argparse
import dataclasses
import io
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
import PIL.Image

from benchmarks import turns
from keras_resnet.preprocessing import REDUCED_DECODING_OF_PHOTOGRAPHS, Preprocessing
from keras_resnet.runner.preprocessing import REDUCED_DECODING
from keras_resnet.training import recipes
from keras_resnet.training.data import batching, sources

SIZE, WIDTH, HEIGHT, BATCH, EPOCHS = 224, 4032, 3024, 20, 4
WAYS = {"whole": REDUCED_DECODING, "reduced": REDUCED_DECODING_OF_PHOTOGRAPHS}


def photograph(seed):
    """Returns a JPEG of noise at many scales, as the detail of scenes is."""
    rng = np.random.default_rng(seed)
    pixels = np.full((HEIGHT, WIDTH, 3), 128, np.float32)
    for side, strength in ((8, 60), (32, 35), (128, 20), (512, 12), (1024, 6)):
        noise = rng.normal(128, strength, (side * 3 // 4, side)).clip(0, 255)
        noise = PIL.Image.fromarray(np.uint8(noise))
        larger = noise.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)
        pixels += np.float32(larger)[..., None] - 128
    pixels += rng.normal(0, 5, (HEIGHT, WIDTH, 1))  # of the sensor
    exif, file = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = (1, 3, 6, 8)[seed % 4]
    image = PIL.Image.fromarray(np.uint8(pixels.clip(0, 255)))
    image.save(file, "JPEG", quality=90, exif=exif)
    return file.getvalue()


def write(folder, pictures):
    """Writes FOLDER/train/CLASS/N.jpg of two classes, and the same below FOLDER/val."""
    for index in range(pictures):
        name = pathlib.Path("ab"[index % 2], f"{index}.jpg")
        for split in ("train", "val"):
            (folder / split / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "train" / name).write_bytes(photograph(index))
        os.link(folder / "train" / name, folder / "val" / name)


def measure(folder, way):
    """Returns pictures a second by what reads them, and this process's peak memory."""
    data = sources.load("folder", folder)
    preprocessing = Preprocessing(
        (SIZE, SIZE), crop_fraction=0.875, reduced_decoding=WAYS[way]
    )
    if way == "whole":
        batching.CACHE_BYTES = 0
    recipe = dataclasses.replace(
        recipes.RECIPES["imagenet"],
        epochs=EPOCHS,
        batch_size=BATCH,
        augmentation="random_resized_crop_flip_30",
    )
    steps = batching.steps_per_epoch(data, BATCH)
    batches = iter(batching.train_batches(data, preprocessing, recipe, seed=0))
    images = steps * BATCH
    found = {}

    def note(name, function, images):
        used = time.process_time()
        found[name] = images / turns.seconds(function)
        found[f"ms of a core in {name}"] = 1000 * (time.process_time() - used) / images

    note("first epoch", lambda: [next(batches) for _ in range(steps)], images)
    # Together: the last batches of an epoch are made beside the first of the next.
    note("later epochs", lambda: list(batches), (EPOCHS - 1) * images)
    held_out = batching.evaluation_batches(data.held_out, preprocessing, BATCH)
    note("evaluation", lambda: list(held_out), data.held_out.examples)
    return found | {
        "GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main():
    """Makes the pictures and prints a line for each way: medians of the rounds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.folder, arguments.way)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write(folder, arguments.pictures)
        sizes = [path.stat().st_size for path in folder.glob("train/*/*")]
        print(f"{len(sizes)} JPEGs of {statistics.mean(sizes) / 1e6:.1f} MB", end="; ")
        print(f"{os.cpu_count()} cores, images/s")

        def in_a_process(way):
            command = [sys.executable, "-m", __spec__.name, "--folder", name]
            output = subprocess.check_output([*command, "--way", way], text=True)
            return json.loads(output.splitlines()[-1])

        found = turns.in_turns(
            in_a_process, {way: way for way in WAYS}, arguments.rounds
        )
    for way, rounds in found.items():
        medians = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
        values = ", ".join(f"{key} {value:.1f}" for key, value in medians.items())
        print(f"{way}: {values}")


if __name__ == "__main__":
    main()
