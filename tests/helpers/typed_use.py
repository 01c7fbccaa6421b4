"""How users call the public API, for the type checker alone: it is never run.

`assert_type` fails where a hint of ours is lost or is another one.
"""

import pathlib
from typing import Any, assert_type

import numpy as np
import PIL.Image

import keras_resnet
from keras_resnet import edge, runner, training


def zoo(images: np.ndarray[Any, Any]) -> None:
    """Networks, pictures and scores."""
    model = keras_resnet.ResNet50(weights=None, classes=2, width=0.5)
    keras_resnet.ResNet20_224(weights="hf://user/name", include_top=False)
    keras_resnet.create_model("resnet8", classes=3)
    keras_resnet.feature_maps(model)
    assert_type(keras_resnet.list_models(), list[str])
    assert_type(keras_resnet.list_weights("resnet50"), list[str])
    scores = model.predict(keras_resnet.preprocess_input(images, model))
    best = keras_resnet.decode_predictions(scores, top=1)
    assert_type(best, list[list[tuple[str, str, float]]])
    preprocessing = keras_resnet.Preprocessing((224, 224), resize="pad")
    assert_type(preprocessing.input_size, tuple[int, int])
    preprocessing.normalize(preprocessing.resize_and_crop(images))
    keras_resnet.load(pathlib.Path("runs/photos"))


def runs() -> None:
    """Training, and what it leaves."""

    def show(progress: training.Progress) -> None:
        assert_type(progress.loss, float | None)

    run = training.train("resnet8", "digits", epochs=2, progress=show)
    assert_type(run, training.Run)
    assert_type(run.labels, tuple[str, ...])
    assert_type(
        training.quantize_aware(run, float_layers=["predictions"]), training.Run
    )
    training.adopt("my.keras", "folder", "runs/my", data_dir="photos", mean=(1, 2, 3))
    print(training.evaluate([run, "runs/other"], views="ten_crop")["top1"])
    assert_type(keras_resnet.push(run, "user/name", license="mit"), str)
    report = edge.export(run, pathlib.Path("a.tflite"), target="edgetpu")
    assert_type(report.paths["tflite"], pathlib.Path)


def device(photo: PIL.Image.Image) -> None:
    """The runner."""
    classifier = runner.Classifier("a.tflite", threads=2)
    for prediction in classifier.classify(photo, top_k=3):
        assert_type(prediction.score, float)
        assert_type(prediction.label, str | None)
