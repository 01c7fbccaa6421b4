"""The benchmark of fine-tuning: its runs, its tables, its sets, PyTorch beside it."""

import json
import random
import re
import shutil
import statistics

import numpy as np
import pytest
from PIL import Image

from benchmarks import finetune, small_sets
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from tests.helpers.commands import ROOT, one_error, run_command, run_python
from tests.helpers.pictures import discs

NAMES = ("apple", "lime")


@pytest.fixture
def photos(tmp_path):
    discs(tmp_path / "photos" / "train", 72, 80, count=14, names=NAMES)
    discs(tmp_path / "photos" / "val", 72, 80, count=2, names=NAMES, seed=1)
    return tmp_path / "photos"


@pytest.fixture
def commands(monkeypatch):
    """What the benchmark runs, in the place of which files appear as train.py's do."""
    called = []

    def command(script, *arguments):
        called.append((script, *arguments))
        given = dict(
            re.fullmatch(r"--(\w+)(?:=(.*))?", str(text)).groups() for text in arguments
        )
        if script == "benchmarks/finetune_torch.py":
            lines = [{"epoch": 1, "top1": 0.5, "seconds": 2.0}]
            return "\n".join(map(json.dumps, lines)), 3.0
        run = finetune.pathlib.Path(given["model_dir"])
        run.mkdir(exist_ok=True)
        if script == "training/train.py":
            balanced = 0.9 if "balance" in given else 0.75
            metrics = {"epochs": 0, "examples_evaluated": 4, "top1": 0.75, "loss": 1.0}
            config = {"recipe": {"learning_rate": 0.0}}
            metrics["balanced_accuracy"] = balanced
            (run / "metrics.json").write_text(json.dumps(metrics))
            (run / "config.json").write_text(json.dumps(config))
            return "", 12.5
        report = {
            "compared": {"top1": 0.5, "keras_top1": 0.75},
            "operators": [{"count": 3}, {"count": 4}],
            "edgetpu_operators": 6,
            "on_chip_bytes_low": 2**20,
            "on_chip_bytes_high": 3 * 2**20,
        }
        (run / "model-int8.report.json").write_text(json.dumps(report))
        return "", 7.0

    monkeypatch.setattr(finetune, "command", command)
    return called


# --- Runs ---------------------------------------------------------------------


def test_a_run_is_the_command_of_a_user_and_is_kept(tmp_path, photos, commands):
    arguments = (tmp_path / "kept", photos, range(2), ["resnet16_224"], "backbone")
    runs = finetune.plain_runs(*arguments)
    assert len(commands) == 4
    train, export = commands[2:]
    run = tmp_path / "kept" / "resnet16_224-freeze=backbone" / "seed1" / "run"
    assert train == (
        "training/train.py",
        *("--dataset=folder", f"--data_dir={photos}", "--model=resnet16_224"),
        *("--seed=1", f"--model_dir={run}", "--freeze=backbone"),
    )
    assert export[:3] == ("edge/export.py", f"--model_dir={run}", "--quantize=int8")
    assert runs["resnet16_224"][1] == {
        "seconds": 12.5,
        "rate": 0.0,
        "epochs": 0,
        "examples_evaluated": 4,
        "top1": 0.75,
        "balanced_accuracy": 0.75,
        "with_unknown": 0.75,
        "int8": 0.5,
        "operators": 7,
        "edgetpu": 6,
        "on_chip": [2**20, 3 * 2**20],
    }
    assert finetune.plain_runs(*arguments) == runs
    assert len(commands) == 4


def test_an_interrupted_run_starts_anew(tmp_path, photos, commands):
    folder = tmp_path / "seed0"
    (folder / "run" / "checkpoints").mkdir(parents=True)
    finetune.kept(folder, finetune.with_int8, photos, "resnet8", 0, "none")
    assert not (folder / "run" / "checkpoints").exists()
    assert not any("freeze" in argument for argument in commands[0])


def test_a_command_that_fails_says_which_and_why():
    with pytest.raises(UserError, match=r"edgetpu.py nowhere failed: error: .*nowhere"):
        finetune.command("edge/edgetpu.py", "nowhere")


@pytest.mark.parametrize("seed", [0, 1])
def test_uneven_sets_keep_twelve_pictures_of_a_class(tmp_path, photos, seed):
    finetune.make_uneven(photos, "lime", seed, tmp_path / "made")
    found = {
        name: sorted(path.name for path in (tmp_path / "made/train" / name).iterdir())
        for name in NAMES
    }
    assert len(found["apple"]) == 14 and len(found["lime"]) == finetune.KEPT
    finetune.make_uneven(photos, "lime", seed, tmp_path / "again")
    finetune.make_uneven(photos, "lime", seed + 5, tmp_path / "other")
    for name, same in (("again", True), ("other", False)):
        names = sorted(path.name for path in (tmp_path / name / "train/lime").iterdir())
        assert (names == found["lime"]) is same
    assert len(list((tmp_path / "made/val").rglob("*.png"))) == 4
    shutil.rmtree(photos / "train/lime")
    discs(photos / "train", 72, 80, count=11, names=["lime"])
    with pytest.raises(UserError, match="12 pictures of a class. Received: 11 in .*li"):
        finetune.make_uneven(photos, "lime", seed, tmp_path / "few")


def test_each_class_is_small_in_turn_with_balance_and_without(
    tmp_path, photos, commands
):
    runs = finetune.uneven_runs(tmp_path / "kept", photos, range(1), ["resnet8"])
    assert list(runs) == [("resnet8", name, 0) for name in NAMES]
    assert list(runs.values()) == [[0.75, 0.9]] * 2
    assert [("--balance" in call) for call in commands] == [False, True] * 2
    assert all("--freeze=backbone" in call for call in commands)
    assert finetune.uneven_table(runs).splitlines()[1:] == [
        "resnet8        apple       0    75.00      90.00   15.00",
        "resnet8         lime       0    75.00      90.00   15.00",
        "resnet8          all  median    75.00      90.00   15.00",
    ]


# --- Tables -------------------------------------------------------------------


def result(seconds, top1, with_unknown, int8):
    counts = dict(epochs=8, rate=2e-5, operators=37, edgetpu=36)
    sizes = dict(examples_evaluated=200, on_chip=[2**20, 3 * 2**19])
    shares = dict(top1=top1, with_unknown=with_unknown, int8=int8)
    return dict(seconds=seconds) | shares | counts | sizes


RUNS = {"resnet8": [result(40.04, 0.96, 0.95, 0.94), result(50, 0.94, 0.9, 0.91)]}


def test_the_table_has_every_seed_and_the_medians():
    head, *rows = [re.split("  +", x) for x in finetune.table(RUNS).splitlines()]
    assert head == list(finetune.HEADER)
    both = ["36 of 37", "1.0 to 1.5"]
    assert rows == [
        ["resnet8", "0", "40.0", "8", "2e-05", "96.00", "95.00", "94.00", "2", *both],
        ["resnet8", "1", "50.0", "8", "2e-05", "94.00", "90.00", "91.00", "-2", *both],
        ["resnet8", "median", "45.0", "95.00", "92.50", "92.50", "0"],
    ]


def test_the_tutorial_is_timed_to_the_goal_and_to_its_best_median():
    curves = ([0.5, 0.94, 0.96], [0.9, 0.92, 0.8], [0.7, 0.93, 0.9])
    theirs = [
        [
            {"epoch": place + 1, "top1": top1, "seconds": 100.0 * (place + 1) + seed}
            for place, top1 in enumerate(curve)
        ]
        for seed, curve in enumerate(curves)
    ]
    *rows, last = finetune.tutorial_table(theirs, RUNS).splitlines()
    assert [re.split("  +", row) for row in rows[1:]] == [
        ["1", "50.00", "90.00", "70.00", "70.00"],
        ["2", "94.00", "92.00", "93.00", "93.00"],
        ["3", "96.00", "80.00", "90.00", "90.00"],
        ["best", "96.00", "92.00", "93.00", "93.00"],
        ["seconds", "300.0", "301.0", "302.0", "301.0"],
        ["seconds to best", "300.0", "201.0", "202.0", "201.0"],
        ["seconds to 93.50", "200.0", "never", "never", "never"],
    ]
    ours = statistics.median([40.04, 50])
    assert last == (
        f"resnet8: 95.00 in 45.0 s; the tutorial takes {201 / ours:.1f}x as long to "
        "its best median, 93.00"
    )


# --- Commands -----------------------------------------------------------------


def test_a_folder_without_held_out_pictures_is_refused(photos):
    done = run_command("benchmarks.finetune", f"--data_dir={photos / 'train'}")
    assert "which has no folder 'train'" in one_error(done)


@pytest.mark.slow
def test_the_command_fine_tunes_and_converts(tmp_path, photos):
    pytest.importorskip("torch")
    done = run_command(
        "benchmarks.finetune",
        f"--data_dir={photos}",
        f"--results={tmp_path / 'runs'}",
        *("--models=resnet8", "--seeds=1", "--freeze=backbone"),
    )
    assert done.returncode == 0, done.stderr
    machine, _, folder, head, run, median = done.stdout.splitlines()
    assert "tensorflow 2." in machine and folder == str(photos)
    name, _, seconds, epochs, _, top1, *found, mapped, _ = re.split("  +", run)
    with_unknown, int8, lost = map(float, found)
    assert (name, epochs) == ("resnet8", "0") and float(seconds) > 1
    assert float(top1) in (0, 25, 50, 75, 100)
    assert with_unknown - int8 == 25 * lost
    count, total = mapped.split(" of ")
    assert 0 < int(count) <= int(total)


@pytest.mark.slow
def test_steps_of_fine_tuning_are_timed_beside_pytorch():
    pytest.importorskip("torch")
    done = run_command(
        "benchmarks.train_step",
        *("--finetune", "--contenders=ours,pytorch", "--model=resnet20_224"),
        *("--batch_size=2", "--rounds=1", "--steps=1"),
    )
    assert done.returncode == 0, done.stderr
    parameters = re.findall(r"([\d,]+) parameters", done.stdout)
    assert len(parameters) == 2 and parameters[0] == parameters[1]
    assert len(re.findall(r"[\d.]+ images/s", done.stdout)) == 2, done.stdout


def test_contenders_that_cannot_freeze_statistics_are_refused():
    done = run_command("benchmarks.train_step", "--finetune")
    assert done.returncode == 2 and "Received: keras" in done.stderr


# --- PyTorch ------------------------------------------------------------------


@pytest.fixture(scope="module")
def in_torch():
    pytest.importorskip("torch")
    from benchmarks import finetune_torch

    return finetune_torch


def test_the_network_in_pytorch_is_the_one_of_the_tests(in_torch, tmp_path):
    import torch
    from safetensors.torch import save_file

    from tests.helpers import torch_resnet

    expected = torch_resnet.random_resnet(18)
    state = expected.state_dict()
    fc = {name: state.pop(name) for name in ("fc.weight", "fc.bias")}
    save_file(state, tmp_path / "features.safetensors")
    net = in_torch.ResNet((2, 2, 2, 2), 1000).eval()
    in_torch.load(net, tmp_path / "features.safetensors")
    net.load_state_dict(fc, strict=False)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(images), expected(images))
    for blocks, wrong in (((2, 2, 2, 1), "layer4.1.bn1"), ((2, 2, 2, 3), "layer4.2.b")):
        with pytest.raises(SystemExit, match=f"another network: {wrong}"):
            other = in_torch.ResNet(blocks, 1000)
            in_torch.load(other, tmp_path / "features.safetensors")


@pytest.mark.parametrize("size", [(500, 375), (300, 403)])
def test_held_out_pictures_are_seen_as_our_preprocessing_sees_them(in_torch, size):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
    image = coarse.resize(size, Image.Resampling.BICUBIC)
    ours = Preprocessing((224, 224), crop_fraction=0.875, interpolation="bilinear")
    expected = ours.resize_and_crop(np.asarray(image))
    actual = np.asarray(in_torch.centre_view(image))
    assert actual.shape == (224, 224, 3)
    assert np.abs(actual.astype(int) - expected.astype(int)).mean() < 1


def test_random_crops_have_the_areas_and_shapes_of_torchvision(in_torch):
    boxes = []
    random.seed(0)

    class Sheet:
        size = (600, 450)

        def crop(self, box):
            boxes.append(box)
            return Image.new("RGB", (box[2] - box[0], box[3] - box[1]))

    for _ in range(1000):
        assert in_torch.random_resized_crop(Sheet()).size == (224, 224)
    left, top, right, bottom = np.array(boxes).T
    assert left.min() >= 0 and top.min() >= 0
    assert right.max() <= 600 and bottom.max() <= 450
    width, height = right - left, bottom - top
    areas, ratios = width * height / 270_000, width / height
    assert 0.079 < areas.min() < 0.085 and 0.95 < areas.max() <= 1
    assert 0.74 < ratios.min() < 0.76 and 1.32 < ratios.max() < 1.35


def test_the_tutorial_runs_without_our_package(in_torch, tmp_path, photos):
    from safetensors.torch import save_file

    state = in_torch.ResNet((1, 1, 1, 1), 2).state_dict()
    features = {name: x for name, x in state.items() if not name.startswith("fc.")}
    save_file(features, tmp_path / "features.safetensors")
    for name in ("tensorflow", "keras", "keras_resnet"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('hidden')")
    done = run_python(
        ROOT / "benchmarks/finetune_torch.py",
        *(f"--data_dir={photos}", f"--weights={tmp_path / 'features.safetensors'}"),
        *("--blocks=1,1,1,1", "--freeze=backbone", "--epochs=2", "--threads=1"),
        PYTHONPATH=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    first, last = map(json.loads, done.stdout.splitlines())
    assert (first["epoch"], last["epoch"]) == (1, 2)
    assert last["top1"] in (0, 0.25, 0.5, 0.75, 1) and np.isfinite(last["loss"])
    assert 0 < first["seconds"] < last["seconds"]


# --- Sets ---------------------------------------------------------------------


def test_crops_to_train_on_and_held_out_ones_do_not_overlap():
    pixels = np.zeros((90, 121, 3), np.uint8)
    pixels[:, :60], pixels[:, 61:] = 50, 200
    found = list(small_sets.crops({"a": Image.fromarray(pixels)}))
    assert [part for part, *_ in found] == ["train"] * 40 + ["val"] * 20
    for part, label, image in found:
        assert label == "a" and image.width == image.height and image.width >= 24
        assert np.unique(image).tolist() == [50 if part == "train" else 200]


def test_photographs_are_named_by_their_paths(tmp_path):
    for number in range(12):
        folder = tmp_path / f"class{number}"
        folder.mkdir()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "same.png")
    found = small_sets.photographs(tmp_path)
    assert len(found) == small_sets.PHOTOGRAPHS and "class11-same" in found
    assert list(small_sets.photographs(None)) == ["china", "flower"]
    with pytest.raises(UserError, match="Received: 1 in"):
        small_sets.photographs(tmp_path / "class3")


def test_sets_are_made_once(tmp_path, capsys):
    small_sets.make_sets(tmp_path / "sets")
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path}/sets/digits: 760 pictures",
        f"{tmp_path}/sets/crops: 120 pictures",
    ]
    for label in map(str, range(10)):
        assert len(list((tmp_path / "sets/digits/train" / label).iterdir())) == 40
    image = Image.open(next((tmp_path / "sets/digits/val/7").iterdir()))
    assert (image.size, image.mode) == ((256, 256), "RGB")
    small_sets.make_sets(tmp_path / "sets")
    assert capsys.readouterr().out.count("is there") == 2
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == [
        *("crops", "digits")
    ]
