"""How long adopt.py tries ways to preprocess, beside evaluating all the pictures once.

    python -m benchmarks.adoption [--model=resnet18] [--pictures=300]

Random weights and random pictures of 640x480: neither changes the time. The first call
of each compiles the model and is part of its time, as it is for a user.
"""

import argparse
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np
from PIL import Image

import keras_resnet
from benchmarks.turns import seconds
from keras_resnet import rewrite
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.training import accuracy, adoption
from keras_resnet.training.data import sources


def write_pictures(folder, number):
    """Writes FOLDER/CLASS/N.jpg, of three classes."""
    rng = np.random.default_rng(0)
    for index in range(number):
        path = os.path.join(folder, f"class{index % 3}", f"{index:04}.jpg")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(pixels).resize((640, 480)).save(path)


def main():
    """Times both and prints the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--pictures", type=int, default=300)
    arguments = parser.parse_args()
    model = keras_resnet.create_model(arguments.model, weights=None, classes=3)
    size = model.inputs[0].shape[1:3]
    raw = Preprocessing(size, **NORMALIZATIONS["raw"])
    with tempfile.TemporaryDirectory() as folder:
        write_pictures(folder, arguments.pictures)
        data = sources.load("folder", folder)
        once = sum(
            seconds(accuracy.of_split, model, split, raw)
            for split in (data.train, data.held_out)
        )
        rewritten = rewrite.for_device(model, raw)
        trying = seconds(
            adoption.found_preprocessing, rewritten, data, size, {}, False, 100.0
        )
    print(
        f"{arguments.model}, {arguments.pictures} pictures: tries for {trying:.1f} s; "
        f"evaluating all of them takes {once:.1f} s; ratio {trying / once:.2f}"
    )


if __name__ == "__main__":
    main()
