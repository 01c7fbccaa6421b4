"""The table and the picture of the degradation experiment, from runs' files."""

import json

import PIL.Image
import pytest

from benchmarks import degradation
from keras_resnet.runner.errors import UserError
from tests.helpers.commands import one_error, run_command

HEAD = "epoch,loss,top1,val_loss,val_top1,val_top5,learning_rate,examples_per_second\n"


def write_run(folder, model, errors, epochs=2, ended=True, **recipe):
    """A run as train.py leaves it, its errors in percent; None: not evaluated."""
    folder.mkdir(exist_ok=True)
    config = {"settings": {"model": model}, "recipe": {"epochs": epochs, **recipe}}
    (folder / "config.json").write_text(json.dumps(config))
    text = HEAD
    for epoch, (training, test) in enumerate(errors, 1):
        held_out = ",," if test is None else f"1.0,{1 - test / 100},0.99"
        text += f"{epoch},1.0,{1 - training / 100},{held_out},0.1,900.0\n"
    (folder / "history.csv").write_text(text)
    if ended:
        metrics = json.dumps({"examples_evaluated": 5000})
        (folder / "metrics.json").write_text(metrics)
    return folder


@pytest.fixture
def runs(tmp_path):
    return [
        write_run(tmp_path / "r44", "resnet44", [(30, 31), (5, 8)]),
        write_run(tmp_path / "p20", "plain20", [(33, 34), (8, 10)]),
        write_run(tmp_path / "p44", "plain44", [(40, None)], ended=False),
    ]


def test_the_table_holds_the_last_errors(runs, capsys):
    done = run_command("benchmarks.degradation", f"--runs={','.join(map(str, runs))}")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert done.stdout.splitlines()[2:] == [
        "| plain-20 | 2 | 8.00 | 10.00 ± 0.42 |",
        "| plain-44 | 1 of 2 | 40.00 | - |",
        "| resnet-44 | 2 | 5.00 | 8.00 ± 0.38 |",
    ]


def test_the_picture_shows_both_errors_of_each_network(runs, tmp_path):
    plain, residual = degradation.picture(list(map(degradation.read, runs))).axes
    titles = [axes.get_title() for axes in (plain, residual)]
    assert titles == list(degradation.KINDS.values())

    def lines(axes):
        lines = axes.get_lines()
        points = [line.get_xydata().round(9).tolist() for line in lines]
        looks = [(line.get_color(), line.get_linestyle()) for line in lines]
        return dict(zip(looks, points, strict=True))

    assert lines(residual) == {
        ("C1", "--"): [[1, 30], [2, 5]],
        ("C1", "-"): [[1, 31], [2, 8]],
    }
    assert len(lines(plain)) == 4
    assert plain.get_ylim() == residual.get_ylim() == (0, 48)  # shows the 40% of one
    assert lines(plain)["C0", "-"] == [[1, 34], [2, 10]]
    path = tmp_path / "curves.png"
    arguments = [f"--runs={','.join(map(str, runs))}", f"--picture={path}"]
    assert run_command("benchmarks.degradation", *arguments).returncode == 0
    with PIL.Image.open(path) as image:
        assert image.size == (1080, 480)


def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path):
    other = write_run(tmp_path / "p32", "plain32", [(1, 2)], epochs=3)
    done = run_command("benchmarks.degradation", f"--runs={runs[0]},{other}")
    assert f"differ in epochs. Received: {other}, {runs[0]}" in one_error(done)


def test_folders_without_a_run_are_refused(runs, tmp_path):
    with pytest.raises(UserError, match="nowhere holds no run"):
        degradation.read(tmp_path / "nowhere")
    write_run(tmp_path / "bottleneck", "vgg16", [(1, 2)])
    with pytest.raises(UserError, match="is of vgg16"):
        degradation.read(tmp_path / "bottleneck")
    (runs[0] / "history.csv").write_text(HEAD + "one,2,3\n")
    with pytest.raises(UserError, match="r44 is damaged"):
        degradation.read(runs[0])
    (runs[1] / "history.csv").unlink()
    with pytest.raises(UserError, match="p20 has no epoch yet"):
        degradation.read(runs[1])
