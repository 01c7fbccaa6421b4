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
copyright = "2026, the keras_resnet maintainers"
release = keras_resnet.__version__
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
]
html_theme = "furo"
html_title = f"keras_resnet {release}"
html_copy_source = False
show_authors = False

nb_execution_mode = "off"  # the outputs are in the notebooks, and the tests run them
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
autosummary_generate = False
smartquotes = False  # quotes in code of docstrings must stay what they are
highlight_language = "none"  # of code blocks that name no language
default_role = "code"  # docstrings are written in Markdown: `name` is code

# Where the text of a file outside of this folder is shown.
PAGES = {
    "README.md": "index.md",
    "BUILD_NOTES.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "edge/README.md": "install.md",
    "edge/README.md#learn-on-the-device": "learn.md",
    "edge/README.md#set-up": "install.md#on-a-device",
    "edge/README.md#versions": "install.md#which-runtime-which-python",
}
_LINK = re.compile(
    r"(?P<text>!?\[[^\]]*\])\((?P<path>[^):#\s]*)(?P<place>#[^)\s]*)?\)", re.S
)


def relink(text, file):
    """Returns the text of a Markdown file with relative links that suit a page here.

    A link to a folder becomes its text alone: the site has no folders of code.
    """

    def link(found):
        place = found["place"] or ""
        path = (file.parent / found["path"]).resolve() if found["path"] else file
        name = path.relative_to(ROOT).as_posix()
        if path.is_dir():
            return found["text"][1:-1]
        target = PAGES.get(name + place)
        if target is None and not found["path"]:
            return found[0]
        if target is None:
            target = PAGES.get(name, os.path.relpath(path, ROOT / "docs")) + place
        return f"{found['text']}({target})"

    return _LINK.sub(link, text)


def _read_page(app, page, source):
    source[0] = relink(source[0], ROOT / "docs" / f"{page}.md")


def _read_included(app, path, page, source):
    source[0] = relink(source[0], (ROOT / "docs" / path).resolve())


def setup(app):
    """Connects what reads pages, and the files that they include."""
    app.connect("source-read", _read_page)
    app.connect("include-read", _read_included)
