"""Folders of pictures that a small model learns in no time."""

import pathlib

import keras
import numpy as np
from PIL import Image
from sklearn.linear_model import LogisticRegression

COLOURS = {"apple": (200, 40, 40), "lime": (60, 190, 50), "plum": (90, 40, 160)}
GRAINS = {"gravel": 8, "paper": 0, "sand": 1}


def discs(root, width, height, count=20, names=COLOURS, seed=0):
    """Writes root/CLASS/N.png: a disc of the colour of its class on noise."""
    rng = np.random.default_rng(seed)
    place = np.mgrid[:height, :width].transpose(1, 2, 0)
    for name in names:
        for number in range(count):
            pixels = rng.integers(60, 200, (height, width, 3))
            radius = rng.integers(18, 34)
            centre = rng.integers(radius, np.array([height, width]) - radius)
            inside = ((place - centre) ** 2).sum(-1) < radius**2
            pixels[inside] = np.clip(COLOURS[name] + rng.integers(-40, 40, 3), 0, 255)
            _write(root, name, number, pixels)
    return root


def surfaces(root, side=320, count=20, seed=0):
    """Writes root/CLASS/N.png: one colour each, with grains of 8, 0 and 1 pixels."""
    rng = np.random.default_rng(seed)
    for name, grain in GRAINS.items():
        for number in range(count):
            pixels = np.full((side, side, 3), rng.integers(90, 160, 3), float)
            if grain:
                noise = rng.normal(0, 30, (side // grain, side // grain, 1))
                pixels += noise.repeat(grain, 0).repeat(grain, 1)
            _write(root, name, number, np.clip(pixels, 0, 255))
    return root


def _write(root, name, number, pixels):
    path = pathlib.Path(root, name, f"{number:03}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.uint8(pixels)).save(path)


def read_by_keras(root, size, **arguments):
    """Returns (float32 images, labels) as Keras reads a folder, sorted by name."""
    options = dict(image_size=size, shuffle=False, batch_size=None, verbose=False)
    dataset = keras.utils.image_dataset_from_directory(root, **options, **arguments)
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.stack(images), np.stack(labels)


def learned(images, labels, front=lambda x: x, end=lambda logits: logits, name="model"):
    """Returns a classifier of these pictures: random features, learned logits.

    It stands for a model that somebody trained, and takes a second.

    Args:
        images: float32 array (number, height, width, 3), what the model takes.
        labels: int array (number,).
        front: layers in front of the convolutions.
        end: layers behind the logits; by default a softmax is the user's to add.
        name: name of the model.
    """
    body, features = _features(images, front)
    fitted = _regression(features, labels)
    logits = keras.layers.Dense(len(fitted.coef_), name="logits")
    model = keras.Model(body.input, end(logits(body.output)), name=name)
    logits.set_weights([fitted.coef_.T, fitted.intercept_])
    return model


def learned_labels(images, targets):
    """Returns a model that returns a logit for each of several labels.

    `targets` is a bool array (number, labels).
    """
    body, features = _features(images, lambda x: x)
    fitted = [_regression(features, label) for label in targets.T]
    logits = keras.layers.Dense(len(fitted), name="logits")
    model = keras.Model(body.input, logits(body.output))
    kernel = np.concatenate([each.coef_ for each in fitted]).T
    logits.set_weights([kernel, np.concatenate([each.intercept_ for each in fitted])])
    return model


def _features(images, front):
    """Returns a model of random convolutions, and its features of the images."""
    keras.utils.set_random_seed(0)
    image = keras.Input(images.shape[1:])
    x = front(image)
    for filters in (16, 32):
        x = keras.layers.Conv2D(filters, 3, 2, padding="same")(x)
        x = keras.layers.BatchNormalization(momentum=0)(x)
        x = keras.layers.ReLU()(x)
    body = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    body(images, training=True)  # statistics of these pictures
    return body, body.predict(images, verbose=0)


def _regression(features, labels):
    return LogisticRegression(C=1000, max_iter=2000).fit(features, labels)
