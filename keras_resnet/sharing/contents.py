"""What of a run is shared: its model, its exports, and what is known of them."""

import dataclasses
import os
import pathlib
import zipfile

from keras_resnet import files, model_metadata
from keras_resnet.edge.scene_exporter import BOXES_SUFFIX
from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.training import checks
from keras_resnet.training.runs.run import Run, open_trained
from keras_resnet.weights.download import MODEL

LABELS = "labels.txt"


@dataclasses.dataclass(frozen=True)
class Export:
    """A .tflite of a run, and the report beside it, a dict; None where it is gone."""

    path: pathlib.Path
    report: dict | None


@dataclasses.dataclass(frozen=True)
class Contents:
    """A run as it is shared.

    Attributes:
        run: the `Run`.
        config: dict of its `config.json`, without the folders of this machine.
        licence: of the weights that it started from, or None.
        exports: its `Export`s.
    """

    run: Run
    config: dict
    licence: str | None
    exports: list[Export]

    @property
    def model(self):
        """The path of the `.keras` file."""
        return self.run.directory / MODEL

    def files(self):
        """Returns {name: path, or bytes} of all files but the model card.

        The members of the `.keras` file are there once more, one by one: that is how
        Keras's own `load_model("hf://...")` wants them.
        """
        found = {MODEL: self.model}
        with zipfile.ZipFile(self.model) as archive:
            found |= {name: archive.read(name) for name in archive.namelist()}
        found |= {export.path.name: export.path for export in self.exports}
        found[LABELS] = "".join(f"{label}\n" for label in self.run.labels).encode()
        return found


def of_run(run, tflite=()):
    """Collects what of a run is shared.

    Args:
        run: a `Run` or the path of its folder; that of its fine-tuning will do too.
        tflite: paths of exports that lie outside of the folder.

    Raises:
        UserError: the folder holds no finished run, its model needs code that is not in
            the file, or an export is of another model.
    """
    run, config = open_trained(run)
    settings = config["settings"]
    if settings.get("custom_objects") or settings.get("allow_lambda"):
        raise UserError(
            "the model needs Python code of yours, and only models that Keras opens "
            f"without are shared. Received: {str(run.directory)!r}"
        )
    described = model_metadata.read(run.directory / MODEL)
    if described is None:
        raise UserError(
            "version 0.1 made this run, and its model.keras does not say how its input "
            "is made: make a run of it by `keras-resnet adopt`. "
            f"Received: {str(run.directory)!r}"
        )
    inside = sorted(
        path
        for path in run.directory.glob("*.tflite")
        if _report_of(path).exists()  # what a compiler made of a file has none
    )
    outside = [checks.path("tflite", path) for path in tflite]
    hashes = _hashes(run.directory)
    exports = [_export(path, hashes, run) for path in [*inside, *outside]]
    names = [export.path.name for export in exports]
    if len(set(names)) < len(names):
        raise UserError(f"two exports have one name. Received: {', '.join(names)}")
    shown = config | {"settings": {key: _local(v) for key, v in settings.items()}}
    return Contents(run, shown, described["licence"], exports)


def _export(path, hashes, run):
    with user_errors(f"the export {path} cannot be read", OSError):
        content = path.read_bytes()
    if not any(digest in content for digest in hashes):
        raise UserError(
            f"this file was not exported from {run.directory}/{MODEL} as it is now: "
            f"export the run again. Received: {str(path)!r}"
        )
    return Export(path, files.read_json(_report_of(path)))


def _report_of(path):
    own = path.with_suffix(".report.json")
    if own.exists() or not path.stem.endswith(BOXES_SUFFIX):
        return own
    # The second file of a detector, from the same conversion.
    return path.with_name(path.stem.removesuffix(BOXES_SUFFIX) + ".report.json")


def _hashes(directory):
    """Returns what exports of a run hold of the model they were made from, as bytes.

    See `About.run_sha256`; a fine-tuned one is made from the folder of `qat.py`.
    """
    sources = (directory / MODEL, directory / "qat" / "saved_model")
    return [bytes.fromhex(files.sha256(path)) for path in sources if path.exists()]


def _local(value):
    """Returns a setting; of a path, which is absolute, its last part alone."""
    is_path = isinstance(value, str) and os.path.isabs(value)
    return pathlib.PurePath(value).name if is_path else value
