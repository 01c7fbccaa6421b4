"""`training.train` for boxes and masks: files, resume, replicas, what is refused."""

import numpy as np
import pytest

from keras_resnet import heads, training
from keras_resnet.runner import detections, metrics
from keras_resnet.runner.boxes import mask_to_input
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes import batching, sources
from keras_resnet.training.runs import folder as run_folder
from tests.helpers.runs import assert_equal_ends, break_after, history
from tests.helpers.scenes import SHORT, train

MEASURES = {"detect": ["ap50", "ap", "ap75"], "segment": ["miou"]}
TASKS = pytest.mark.parametrize("task", MEASURES)


@TASKS
def test_a_run_writes_its_files(task, scene_runs):
    run = scene_runs[task]
    rest = {"loss", "examples_per_second", "epochs", "examples_evaluated", "by_class"}
    assert set(run.metrics) == {*MEASURES[task], *rest}
    assert set(run.metrics["by_class"]) == set(run.labels)
    rows = history(run.directory)
    assert list(rows[0]) == [
        *("epoch", "loss", "val_loss", *(f"val_{name}" for name in MEASURES[task])),
        *("learning_rate", "examples_per_second"),
    ]
    last = float(rows[-1][f"val_{MEASURES[task][0]}"])
    assert last == pytest.approx(run.metrics[MEASURES[task][0]])
    assert (run.directory / "curves.png").read_bytes().startswith(b"\x89PNG")
    config = run_folder.read_config(run.directory)
    assert config["settings"]["task"] == task
    assert config["preprocessing"]["resize"] == "stretch"
    assert run_folder.dataset_of(config).task == task


def outputs_of(run, task, scene_folder):
    """Yields what the saved model returns, and the target, of each held-out picture."""
    dataset = sources.load(task, "labelme_folder", scene_folder)
    model, how = run.load_model(), run.preprocessing
    batches = batching.evaluation_batches(dataset, dataset.held_out, how, 1)
    for images, target, _ in batches:
        yield model(images), target


def test_average_precision_is_that_of_the_saved_model(scene_runs, scene_folder):
    run = scene_runs["detect"]
    measured = metrics.AveragePrecision(2)
    anchors = heads.anchors(run.load_model())
    for found, target in outputs_of(run, "detect", scene_folder):
        boxes, scores = (found[name].numpy()[0] for name in ("boxes", "scores"))
        measured.add(
            batching.unpadded(target, 0),
            detections.find_objects(boxes, scores, anchors),
        )
    for name in MEASURES["detect"]:
        assert run.metrics[name] == pytest.approx(measured.result()[name], abs=1e-6)


def test_mean_iou_is_that_of_the_saved_model(scene_runs, scene_folder):
    run = scene_runs["segment"]
    confusion = 0
    for scores, mask in outputs_of(run, "segment", scene_folder):
        found = scores.numpy()[0].argmax(-1).astype(np.uint8)
        found = mask_to_input(found, run.preprocessing)
        confusion += metrics.confusion_matrix(mask.numpy()[0], found, 3)
    expected = metrics.mean_iou(confusion)["miou"]
    assert run.metrics["miou"] == pytest.approx(expected, abs=1e-6)


# The loop is that of the classes, and test_batching.py resumes an epoch.
@pytest.mark.slow
@TASKS
def test_a_broken_run_continues_to_equal_weights(
    task, scene_runs, scene_folder, tmp_path
):
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        break_after(patch, 2)
        train(task, scene_folder, tmp_path, checkpoint_steps=1)
    continued = train(task, scene_folder, tmp_path, checkpoint_steps=1)
    assert_equal_ends(scene_runs[task].directory, tmp_path, "step-00000006.npz")
    weights = [run.load_model().get_weights() for run in (scene_runs[task], continued)]
    for one, other in zip(*weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
@TASKS
def test_replicas_measure_every_picture_once(task, scene_folder, tmp_path):
    """Three held-out pictures, in batches that two replicas share."""
    replicas = dict(strategy="mirrored", cpu_replicas=2, epochs=1)
    run = train(task, scene_folder, tmp_path, **replicas)
    assert run.metrics["examples_evaluated"] == 3
    again = training.evaluate(run, data_dir=scene_folder)
    for name in ("loss", *MEASURES[task]):
        assert again[name] == pytest.approx(run.metrics[name], abs=1e-4)


def test_published_weights_keep_their_normalization(scene_folder, tmp_path):
    """Of all else in the backbone, something is learned."""
    settings = dict(model="resnet14", weights="cifar10", epochs=1, recipe="detect")
    run = train("detect", scene_folder, tmp_path, **settings)
    trained = run.load_model()
    with np.load(next((tmp_path / "checkpoints").glob("*.npz"))) as checkpoint:
        names = [name for name in checkpoint.files if name.startswith("optimizer/")]
    assert any("P3_head_bn" in name for name in names)
    assert not any("conv2_block1_1_bn" in name for name in names)
    assert any("conv2_block1_1_conv" in name for name in names)
    assert trained.get_layer("conv1_bn").moving_mean.numpy().any()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        (dict(task="find"), "unknown task: choose one of classify, detect, segment"),
        (
            dict(task="classify"),
            "--dataset=labelme_folder has boxes or masks: it needs",
        ),
        (dict(dataset="digits"), "--dataset=digits is for --task=classify; for --ta"),
        (dict(recipe="digits"), "--recipe=digits is for --task=classify. Received"),
        (dict(task="classify", dataset="digits", recipe="detect"), "is for --task=det"),
        (dict(teacher="resnet20"), "--teacher is for --task=classify. Received"),
        (dict(balance=True), "--balance is for --task=classify. Received"),
        (dict(freeze="backbone"), "--freeze is for --task=classify. Received"),
        (dict(dataset="mask_folder"), "--dataset=mask_folder is for --task=segment"),
        (dict(image_size=36), "multiples of 8 pixels. Received: 36 x 36"),
    ],
)
def test_what_is_for_another_task_is_refused(changes, text, scene_folder, tmp_path):
    arguments = {**SHORT, "task": "detect", **changes}
    with pytest.raises(UserError, match=text):
        training.train(**arguments, data_dir=scene_folder, model_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_task_is_another_run(scene_runs, scene_folder):
    with pytest.raises(UserError, match="task=detect there, segment received"):
        train("segment", scene_folder, scene_runs["detect"].directory)
