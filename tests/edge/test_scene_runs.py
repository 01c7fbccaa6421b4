"""From a run that learned boxes or masks to the device: export, QAT, evaluation."""

import json
import shutil

import numpy as np
import pytest

from keras_resnet import edge, training
from keras_resnet.edge import scene_exporter
from keras_resnet.edge import source as edge_source
from keras_resnet.edge.convert import metadata
from keras_resnet.runner import UserError
from keras_resnet.training.data.scenes import sources
from keras_resnet.training.scenes import answers, going_on
from tests.helpers import other_programs
from tests.helpers.commands import run_command
from tests.helpers.runs import silent

TASKS = pytest.mark.parametrize("task", ["detect", "segment"])
MEASURES = {"detect": ("ap", "ap50", "ap75"), "segment": ("miou",)}
LOSE_ALL = dict(max_drop=100, calibration_examples=8)


@pytest.fixture(scope="module")
def exported(scene_runs, tmp_path_factory):
    """{task: the `Report` of int8 without QAT}."""
    folder = tmp_path_factory.mktemp("exported")
    return {
        task: edge.export(run, folder / f"{task}.tflite", **LOSE_ALL)
        for task, run in scene_runs.items()
    }


@TASKS
def test_a_run_becomes_files_for_the_device(task, exported, scene_runs):
    report = exported[task]
    kinds = {"tflite", "json", "html"} | ({"boxes"} if task == "detect" else set())
    assert set(report.paths) == kinds
    assert report == json.loads(report.paths["json"].read_text())
    assert report["quantize"] == "int8" and not report["float_operators"]
    for name in MEASURES[task]:
        expected = pytest.approx(scene_runs[task].metrics[name], abs=1e-6)
        assert report["compared"][f"keras_{name}"] == expected
    kind = edge.Detector if task == "detect" else edge.Segmenter
    for name in kinds & {"tflite", "boxes"}:
        model = kind(report.paths[name])
        assert model.labels == list(scene_runs[task].labels)
        assert model.preprocessing.resize == "stretch"


@TASKS
def test_evaluation_of_a_file_agrees_with_its_report(task, exported, scene_folder):
    """By files alone: they lie in no run, so the dataset is named."""
    report = exported[task]
    where = dict(dataset="labelme_folder", data_dir=scene_folder)
    for kind in {"tflite", "boxes"} & set(report.paths):
        found = training.evaluate(report.paths[kind], **where)
        assert found["examples_evaluated"] == 3
        prefix = "boxes_" if kind == "boxes" else ""
        for name in MEASURES[task]:
            assert found[name] == report["compared"][prefix + name]
        labels = sources.load(task, *where.values()).labels
        assert list(found["by_class"]) == list(labels)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_quantization_aware_training_keeps_the_outputs(
    task, scene_runs, scene_folder, tmp_path
):
    trained = tmp_path / "run"
    shutil.copytree(scene_runs[task].directory, trained)
    run = training.quantize_aware(trained, progress=silent)
    assert set(MEASURES[task]) < set(run.metrics)
    assert (run.directory / "report.html").is_file()
    report = edge.export(trained, **LOSE_ALL)
    assert report["quantize"] == "qat" and not report["float_operators"]
    assert report["post_training"]["images"] == 3
    # The file computes what was measured at the end of the fine-tuning.
    for name in MEASURES[task]:
        assert report["compared"][name] == pytest.approx(run.metrics[name], abs=0.05)
    data = sources.load(task, "labelme_folder", scene_folder)
    pairs = answers.examples(data, data.held_out, run.preprocessing)
    pixels = next(pairs)[0]
    model = run.load_model()
    outputs = model.predict(run.preprocessing.normalize(pixels[None]), verbose=0)
    if task == "detect":
        detector = edge.Detector(report.paths["tflite"])
        for place, name in enumerate(("boxes", "scores")):
            values = detector.dequantized(place, detector.outputs(pixels)[place])
            step = detector._outputs[place]["quantization"][0]
            difference = np.abs(values - outputs[name][0]).max()
            assert difference <= max(6 * step, 0.05 * np.ptp(outputs[name])), name
    else:
        segmenter = edge.Segmenter(report.paths["tflite"])
        scores = segmenter.dequantized(0, segmenter.outputs(pixels)[0])
        assert np.abs(scores - outputs[0]).mean() < 0.02


def test_other_programs_run_the_files_of_runs(
    exported, scene_runs, scene_folder, tmp_path
):
    """The detector gets higher scores: so short a training makes none that count."""
    source = edge_source.of_run(scene_runs["detect"], data_dir=scene_folder)
    for layer in source.model.layers:
        if going_on.CLASS_LAYERS.fullmatch(layer.name) and layer.get_weights():
            kernel, bias = layer.get_weights()
            layer.set_weights([30 * kernel, np.zeros_like(bias)])
    about = metadata.About("raised")
    path = tmp_path / "raised.tflite"
    report = scene_exporter.export(source, path, about, max_drop=100)
    boxes, masks = report.paths["boxes"], exported["segment"].paths
    detector, segmenter = edge.Detector(boxes), edge.Segmenter(masks["tflite"])
    data = source.dataset
    pairs = answers.examples(data, data.held_out, detector.preprocessing)
    pictures = np.stack([pixels for pixels, _ in pairs])
    ours = [detector.detect(pixels, 0.1) for pixels in pictures]
    assert all(ours)
    for pixels, found in zip(pictures, ours, strict=True):
        theirs = other_programs.pycoral(boxes, pixels, 0.1)
        assert [one[:2] for one in theirs] == [(one.index, one.score) for one in found]
    theirs, labels, classes = other_programs.mediapipe(
        boxes, masks["tflite"], pictures, 0.1, tmp_path
    )
    for found, others in zip(ours, theirs, strict=True):
        scores = sorted((score for _, score, _ in others), reverse=True)
        assert scores == pytest.approx([one.score for one in found], abs=1e-6)
    assert labels == segmenter.labels
    own = np.stack([segmenter.segment(pixels) for pixels in pictures])
    assert np.mean(own == classes) > 0.8  # theirs resize scores before they choose


def test_the_command_exports_a_run(scene_runs, tmp_path):
    run, path = scene_runs["detect"].directory, tmp_path / "a.tflite"
    done = run_command(
        "edge/export.py",
        *(f"--model_dir={run}", f"--output={path}", "--quantize=float16"),
        "--max_drop=100",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{path}\n") and "with boxes" in done.stdout


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (dict(features=True), "--features is for classifiers, and .* learned boxes"),
        (dict(target="tflite_micro"), "--target=tflite_micro is for classifiers, and"),
        (dict(labels=["a", "b"]), "--labels need --model: a run knows its own"),
        (
            dict(dataset="digits"),
            "--dataset=digits is for --task=classify; for --task=d",
        ),
        (dict(quantize="qat"), "--quantize=qat needs a run that training/qat.py"),
    ],
)
def test_what_does_not_apply_is_refused(changes, text, scene_runs, tmp_path):
    with pytest.raises(UserError, match=text):
        edge.export(scene_runs["detect"], tmp_path / "a.tflite", **changes)
    assert not list(tmp_path.iterdir())


def test_a_detector_is_exported_from_its_run(scene_runs, tmp_path):
    with pytest.raises(UserError, match="a detector is exported from the folder of"):
        edge.export(scene_runs["detect"].load_model(), tmp_path / "a.tflite")


def test_a_detector_is_evaluated_alone_and_as_it_is(scene_runs):
    run = scene_runs["detect"]
    for arguments in (dict(model=run, views="ten_crop"), dict(model=[run, run])):
        with pytest.raises(UserError, match="is a model for --task=detect: evaluate"):
            training.evaluate(**arguments)
