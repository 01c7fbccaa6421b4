"""The way of a new user with photographs, a features file and the runner."""

import json
import shutil
import subprocess

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_resnet import edge
from tests.helpers import pictures
from tests.helpers.runner import RUNNER, run_beside_the_file

CLASSES = {"palace": "china.jpg", "flower": "flower.jpg"}


def write_photographs(folder):
    """Writes folder/photos/CLASS/N.jpg, 20 of each, and folder/new/CLASS.jpg.

    They are parts of scikit-learn's photographs.
    folder/sand has 20 pictures of something else, and folder/new one more of these.
    """
    rng = np.random.default_rng(0)
    (folder / "new").mkdir(parents=True)
    for name, file in CLASSES.items():
        whole = Image.fromarray(load_sample_image(file))
        (folder / "photos" / name).mkdir(parents=True)
        for number in range(20):
            part = _part(rng, whole)
            part.save(folder / "photos" / name / f"{number}.jpg", quality=92)
        _part(rng, whole).save(folder / "new" / f"{name}.jpg", quality=92)
    pictures.surfaces(folder / "surfaces", count=21)
    (folder / "surfaces" / "sand").rename(folder / "sand")
    (folder / "sand" / "020.png").rename(folder / "new" / "sand.png")
    shutil.rmtree(folder / "surfaces")
    return folder


def _part(rng, whole):
    side = int(rng.integers(200, whole.height))
    left = int(rng.integers(whole.width - side + 1))
    top = int(rng.integers(whole.height - side + 1))
    return whole.crop((left, top, left + side, top + side))


def export_features(folder):
    """Writes folder/features.tflite, of a network that is quick without XNNPACK too."""
    settings = dict(weights="cifar10", dataset="folder", features=True)
    path = folder / "features.tflite"
    edge.export(
        "resnet20", path, data_dir=folder / "photos", target="edgetpu", **settings
    )
    return path


def learn_as_a_new_user(python, folder, timeout=600):
    """Learns 40 photographs, classifies others, meets a stranger, adds its class.

    Args:
        python: list of str, the command of a Python.
        folder: of `write_photographs` and `export_features`. The runner is copied
            into it, and changed files stay.
    """
    shutil.copy(RUNNER, folder)

    def run(*argv):
        command = [*map(str, python), RUNNER.name, "--model=features.tflite"]
        done = subprocess.run(
            [*command, "--classes=mine.json", *argv],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def answers():
        lines = run("--json", "--top_k=1", "new").splitlines()
        records = [json.loads(line) for line in lines]
        return {record["file"]: record["top"][0]["label"] for record in records}

    learned = run("--learn=photos", "--json")
    report = json.loads(learned)
    assert report["pictures"] == {"flower": 20, "palace": 20}
    assert report["accuracy"] >= 0.85 and report["known"] >= 0.85
    known = {f"new/{name}.jpg": name for name in CLASSES}
    assert answers() == {**known, "new/sand.png": "unknown"}
    shutil.copytree(folder / "sand", folder / "photos" / "sand")
    assert "3 classes and unknown, learned from 60 pictures" in run("--learn=photos")
    assert answers() == {**known, "new/sand.png": "sand"}


MODULE = """
import os, sys
before, forks = set(sys.modules), []
os.fork = lambda: forks.append(1)
model, features, photo, photos, classes = sys.argv[1:]
sys.argv = ["program", "--camera"]
from run_tflite import Classifier
assert not forks and not {"numpy", "PIL", "tensorflow"} & set(sys.modules) - before
import numpy
from PIL import Image
classifier = Classifier(model)
with Image.open(photo) as image:
    pixels = numpy.array(image.convert("RGB"))
for image in (photo, Image.fromarray(pixels), pixels):
    best = classifier.classify(image)[0]
    print(best.label, best.score)
print(Classifier(features).learn(photos, classes)["pictures"])
print(Classifier(features, classes=classes).classify(pixels)[0].label)
assert not forks
"""


def answers_of_the_module(python, model, features, photo, photos, classes):
    """Returns what a program prints that imports the runner from its own folder.

    That is a label and its score for a photograph by path, as a PIL image and as an
    array; how many pictures were learned; the label of the photograph then.
    """
    argv = [model, features, photo, photos, classes]
    done = run_beside_the_file(MODULE, *argv, python=python, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
