from matplotlib.figure import Figure

from keras_resnet.training.runs import report
from tests.helpers.commands import one_error, run_code

# A limit on the size of files stands for the full disk.
FULL_DISK = '''
"""Writes to a disk that is full."""
import pathlib
import resource
import sys
from keras_resnet import console
from keras_resnet.commands import app

def define_flags():
    pass

def main():
    console.import_tensorflow()
    from keras_resnet.training.runs import report

    board = report.open_board(pathlib.Path())
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
    report.write_scalars(board, {"epoch": 1, "loss": 1.0, "top1": 0.5})

app.run(sys.modules["__main__"])
'''


def test_a_full_disk_under_tensorboard_is_one_line(tmp_path):
    error = one_error(run_code(FULL_DISK, tmp_path))
    assert "cannot be written: tensorboard/events" in error
    assert "File too large" in error


def test_curves_are_of_the_error_and_of_whatever_the_loss_is(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig

    def note_and_save(self, *arguments, **more):
        drawn.append(self)
        save(self, *arguments, **more)

    monkeypatch.setattr(Figure, "savefig", note_and_save)
    report.draw_curves(tmp_path, [{"epoch": 1, "loss": 1.5, "top1": 0.5}])
    (figure,) = drawn
    assert [axes.get_title() for axes in figure.axes] == ["top-1 error, %", "loss"]
    assert (tmp_path / "curves.png").exists()
