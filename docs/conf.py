"""Settings of Sphinx, which makes the documentation site of these pages: `make docs`.

Every page lies in this folder itself, so that a link to a file is the same on the site
and in a view of the repository.
"""

import os
import pathlib
import re

import keras_resnet
from keras_resnet import console

console.import_tensorflow()  # without its start-up messages

ROOT = pathlib.Path(__file__).resolve().parents[1]

project = "keras_resnet"
release = keras_resnet.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
html_theme = "furo"
html_title = f"keras_resnet {release}"
html_copy_source = False
show_authors = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autosummary_generate = False
default_role = "code"  # docstrings are written in Markdown: `name` is code

# Where the text of a file outside of this folder is shown.
PAGES = {
    "README.md": "index.md",
    "BUILD_NOTES.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "edge/README.md": "install.md",
    "edge/README.md#learn-on-the-device": "learn.md",
}
_LINK = re.compile(
    r"(?P<text>!?\[[^\]]*\])\((?P<path>[^):#\s]+)(?P<place>#[^)\s]*)?\)", re.S
)


def relink(text, folder):
    """Returns a Markdown text of `folder` with relative links that suit a page here.

    A link to a folder becomes its text alone: the site has no folders of code.
    """

    def link(found):
        place = found["place"] or ""
        path = (folder / found["path"]).resolve()
        name = path.relative_to(ROOT).as_posix()
        if path.is_dir():
            return found["text"][1:-1]
        if name + place in PAGES:
            return f"{found['text']}({PAGES[name + place]})"
        target = PAGES.get(name) or os.path.relpath(path, ROOT / "docs")
        return f"{found['text']}({target}{place})"

    return _LINK.sub(link, text)


def _read_page(app, page, source):
    source[0] = relink(source[0], ROOT / "docs")


def _read_included(app, path, page, source):
    source[0] = relink(source[0], (ROOT / "docs" / path).resolve().parent)


def setup(app):
    """Connects what reads pages, and the files that they include."""
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
