"""Models with heads as int8 files: the estimate of what the Edge TPU runs of them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_resnet
from keras_resnet import heads
from keras_resnet.console import hidden_output
from keras_resnet.edge.targets import edgetpu

NETWORKS = [
    ("resnet14", 64),
    pytest.param("resnet16_224", 224, marks=pytest.mark.slow),
]


def report_on(folder, build, name, size, **arguments):
    """Converts a model of random weights with the ranges of random images."""
    backbone = keras_resnet.create_model(
        name, include_top=False, weights=None, input_shape=(size, size, 3)
    )
    model = build(backbone, 20, **arguments)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 1, size, size, 3)).astype(np.float32)
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint(
        "serve",
        lambda image: model(image, training=False),
        input_signature=[tf.TensorSpec(images[0].shape, tf.float32, name="image")],
    )
    with hidden_output(1, 2):
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
        return edgetpu.check(converter.convert())


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_every_operator_of_a_detector_maps_or_is_likely_to(name, size, tmp_path):
    report = report_on(tmp_path, heads.detector, name, size)
    assert report.complete and report.fits, report.lines()
    likely = {x.operator for x in report.verdicts if x.kind == "likely"}
    assert likely == {"RESIZE_BILINEAR"}


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_without_a_top_down_path_every_operator_maps(name, size, tmp_path):
    report = report_on(tmp_path, heads.detector, name, size, top_down=False)
    assert report.complete and report.fits and not report.likely, report.lines()


@pytest.mark.parametrize(("name", "size"), NETWORKS)
def test_of_a_segmenter_the_softmax_alone_stays_on_the_cpu(name, size, tmp_path):
    """With it what follows, the QUANTIZE of the interface."""
    report = report_on(tmp_path, heads.segmenter, name, size)
    assert report.fits
    stays = [x.operator for x in report.verdicts if not x.maps]
    assert stays == ["SOFTMAX", "QUANTIZE"], report.lines()
    logits = report_on(
        tmp_path / "logits", heads.segmenter, name, size, activation=None
    )
    assert logits.complete, logits.lines()
