"""Writes the page of a .tflite."""

import base64
import functools
import gzip
import os
import pathlib
from collections.abc import Sequence

import keras_resnet
from keras_resnet import files, page_template
from keras_resnet.edge.page import contents, runtime
from keras_resnet.edge.page import samples as sample_pictures
from keras_resnet.runner.errors import UserError

FOLDER = pathlib.Path(__file__).parent
# In the order in which they run: each is a script, not a module.
WORKER_SCRIPTS = ("resample", "sampling", "geometry", "decode", "worker")
PAGE_SCRIPTS = tuple("resample network scores boxes masks overlay camera main".split())
LIST_NAMES = {
    "classify": "Best classes",
    "detect": "Objects",
    "segment": "Shares of the picture",
}


def write_page(
    model: str | os.PathLike,
    output: str | os.PathLike | None = None,
    *,
    labels: str | os.PathLike | None = None,
    samples: Sequence[str | os.PathLike] = (),
) -> pathlib.Path:
    """Writes a web page that answers for pictures by itself, offline.

    The page is one HTML file with the model, its labels and preprocessing and LiteRT
    for browsers inside. It opens from disk and fetches nothing. It answers for pictures
    that are dropped, chosen or pasted, for the camera and for samples. Boxes and masks
    are drawn over the picture.

    Args:
        model: path of a .tflite that `edge.Classifier`, `edge.Detector` or
            `edge.Segmenter` runs, of this package or another. Its
            input must be uint8, or float32 with the normalization in its metadata.
            Without a preprocessing.json inside, pictures are stretched to the input as
            `edge.Classifier` does.
        output: path of the page, `.html`; by default that of the model with this
            suffix.
        labels: path of a label file, one a line, if the model has none inside.
        samples: paths of pictures to choose from in the page.

    Returns:
        `pathlib.Path` of the page.

    Raises:
        UserError: the model cannot have a page, a picture cannot be read, or LiteRT for
            browsers is not installed; the message has the command for that.
        OSError: the page cannot be written.
    """
    output = pathlib.Path(output or pathlib.Path(model).with_suffix(".html"))
    if output.suffix != ".html":
        raise UserError(f"--output must end in .html. Received: {str(output)!r}")
    pictures = sample_pictures.of_files(samples)
    files.write_text(output, html(model, labels=labels, samples=pictures))
    return output


def html(model, name=None, labels=None, samples=()):
    """Returns the page of a model as text.

    Args:
        model: path of the .tflite.
        name: title of the page; by default the name of the file.
        labels: path of a label file, or None.
        samples: what `samples.of_image` returns, of each picture.
    """
    config = contents.describe(model, labels)
    assets = runtime.read() | {"model": pathlib.Path(model).read_bytes()}
    height, width = config["preprocessing"]["inputSize"]
    return page_template.render(
        FOLDER,
        title=name or pathlib.Path(model).stem,
        width=width,
        height=height,
        about=_about(config, os.path.getsize(model)),
        list_name=LIST_NAMES[config["task"]],
        config=config | {"samples": list(samples)},
        assets={key: _packed(content) for key, content in assets.items()},
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        worker=_joined(WORKER_SCRIPTS),
        script=_joined(PAGE_SCRIPTS),
        licence=(FOLDER / "runtime.LICENSE").read_text(encoding="utf-8"),
    )


@functools.lru_cache(len(runtime.FILES) + 1)  # a second page needs no second packing
def _packed(content):
    """Returns bytes as text: gzip, then base64. Equal bytes give equal text."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _joined(names):
    texts = [(FOLDER / f"{name}.js").read_text(encoding="utf-8") for name in names]
    return "\n".join(texts)


def _about(config, size):
    """Returns what the page says about itself, (name, text) each."""
    how, labels = config["preprocessing"], config["labels"]
    names = [label or "?" for label in labels[:10]]
    shown = ", ".join(names + ["..."] * (len(labels) > 10))
    antialias = "with" if how["antialias"] else "without"
    return [
        ("Model", f"{size / 1e6:.2f} MB, {len(labels)} classes: {shown}"),
        (
            "Pictures",
            f"{how['resize']}, {how['interpolation']}, {antialias} antialiasing; the "
            "pixels are those of Pillow, but for the browser's decoding of JPEG",
        ),
        ("Runtime", f"LiteRT for browsers, {runtime.PACKAGES[0]}, by Google"),
        ("Made by", f"keras_resnet {keras_resnet.__version__}"),
    ]
