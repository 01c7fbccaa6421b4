r"""Measures what the label `unknown` costs and brings, and whether scores are right.

    python -m benchmarks.unknown --data_dir=DIR --strangers=DIR2 [--freeze=backbone]

DIR holds {train,val}/CLASS/IMAGE, and DIR2 pictures of other things at any level. For
each seed, a run is trained with the defaults of `train` and exported as int8. Both
files then see the same pixels of val and of the strangers. With --nothing=30, so many
of the strangers are learned from the folder `_none`, and the others are counted.

- "known" is the share of val that is not answered with `unknown`, "right" the top-1
  among these, and "strangers" the share of the strangers that is answered with a class.
- "error" is the expected calibration error on val (15 bins) of the scores of the
  classes alone, and "raw error" what it is without the temperature.
"""

import argparse
import os
import pathlib
import statistics
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import numpy as np

from benchmarks.finetune import linked
from benchmarks.learn_on_device import pictures_of
from keras_resnet import edge, training
from keras_resnet.runner import pipeline
from keras_resnet.runner.learning import NOTHING
from keras_resnet.runner.output import Messages
from keras_resnet.runner.sources import find_images_below
from keras_resnet.training.reporting import calibration
from keras_resnet.training.runs import folder as run_folder

COLUMNS = ("known", "right", "strangers", "error", "raw error")


def with_nothing(data_dir, nothing, folder):
    """Links a folder of data and some strangers into another folder."""
    linked(data_dir, folder)
    if nothing:
        (folder / "train" / NOTHING).mkdir()
    for path in map(pathlib.Path, nothing):
        (folder / "train" / NOTHING / path.name).symlink_to(path.resolve())
    return folder


def measures(scores, labels, strangers, temperature):
    """Returns {column: value} of scores (pictures, classes + 1), the last `unknown`.

    Args:
        scores: of val.
        labels: int, its classes.
        strangers: of the strangers.
        temperature: that of the run.
    """
    known = scores.argmax(1) < scores.shape[1] - 1
    own = scores[:, :-1] / scores[:, :-1].sum(1, keepdims=True)
    raw = np.maximum(own, 1e-6) ** temperature
    raw /= raw.sum(1, keepdims=True)
    targets = np.eye(own.shape[1], dtype=bool)[labels]
    return {
        "known": known.mean(),
        "right": (scores.argmax(1) == labels)[known].mean(),
        "strangers": (strangers.argmax(1) < scores.shape[1] - 1).mean(),
        "error": calibration.error(own, targets),
        "raw error": calibration.error(raw, targets),
    }


def of_seed(seed, arguments, folder):
    """Returns ({column: value} of the float model, likewise of the int8 file)."""
    strangers = find_images_below(arguments.strangers, Messages())
    order = np.random.default_rng(seed).permutation(len(strangers))
    nothing = [strangers[i] for i in order[: arguments.nothing]]
    others = [strangers[i] for i in order[arguments.nothing :]]
    data = with_nothing(arguments.data_dir, nothing, folder / "data")
    run = training.train(
        arguments.model,
        "folder",
        data_dir=data,
        freeze=arguments.freeze,
        seed=seed,
        model_dir=folder / "run",
        progress=lambda progress: None,
    )
    edge.export(run, folder / "model.tflite", quantize="int8", max_drop=100)
    device, model = edge.Classifier(folder / "model.tflite"), run.load_model()
    pictures = pictures_of(data / "val")
    labels = np.array([label for _, label in pictures])
    pixels = [
        np.stack([pipeline.load_pixels(path, device)[0] for path in paths])
        for paths in ([path for path, _ in pictures], others)
    ]
    recipe = run_folder.read_config(run.directory)["recipe"]
    on_desktop = [
        model.predict(run.preprocessing.normalize(images), verbose=0)
        for images in pixels
    ]
    on_device = [np.stack([device.scores(image) for image in part]) for part in pixels]
    print(f"seed {seed}: {run.metrics['epochs']} epochs of all layers", flush=True)
    return [
        measures(own, labels, strange, recipe["temperature"])
        for own, strange in (on_desktop, on_device)
    ]


def main():
    """Trains, exports and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--strangers", required=True, help="folder of photographs")
    parser.add_argument("--model", default="resnet20_224")
    parser.add_argument("--freeze", choices=["backbone"])
    parser.add_argument("--nothing", type=int, default=0, help="pictures in `_none`")
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    rows = {"float": [], "int8": []}
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            found = of_seed(seed, arguments, pathlib.Path(folder))
        for kind, row in zip(rows, found, strict=True):
            rows[kind].append(row)
            print(kind, "  ".join(f"{x} {row[x]:.1%}" for x in COLUMNS), flush=True)
    for kind, of_kind in rows.items():
        medians = {x: statistics.median(row[x] for row in of_kind) for x in COLUMNS}
        text = "  ".join(f"{name} {value:.1%}" for name, value in medians.items())
        print(f"{kind}, median of {len(of_kind)}: {text}")


if __name__ == "__main__":
    main()
