"""The documentation site: built as `make docs` builds it, and every link followed."""

import ast
import html.parser
import importlib
import re
import subprocess
import sys
import urllib.parse

import pytest

from tests.helpers.commands import ROOT

LOADING = {"script": "src", "img": "src", "link": "href", "iframe": "src"}


class Page(html.parser.HTMLParser):
    """What a page links to, what it loads, and the places that it has."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loads, self.places = [], [], set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.places |= {attributes.get("id")}
        if tag == "a" and "href" in attributes:
            self.links.append(attributes["href"])
        if attributes.get(LOADING.get(tag)):
            self.loads.append(attributes[LOADING[tag]])


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    pytest.importorskip("sphinx")
    folder = tmp_path_factory.mktemp("site")
    flags = ("--fail-on-warning", "--keep-going", "--quiet")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *flags, "docs", folder],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {path: Page(path) for path in folder.glob("*.html")}


@pytest.mark.slow
def test_every_link_inside_of_the_site_leads_to_a_place(pages):
    followed = 0
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme:
                continue
            target = path
            if parts.path:
                target = (path.parent / urllib.parse.unquote(parts.path)).resolve()
                assert target.exists(), (path.name, link)
            if parts.fragment and target in pages:
                places = pages[target].places
                assert urllib.parse.unquote(parts.fragment) in places, (path.name, link)
            followed += 1
    assert followed > 1000


@pytest.mark.slow
def test_a_page_loads_nothing_from_elsewhere(pages):
    for path, page in pages.items():
        assert page.loads
        for link in page.loads:
            assert not urllib.parse.urlsplit(link).netloc, (path.name, link)


def test_every_public_name_is_in_the_api_reference():
    reference = (ROOT / "docs/api.rst").read_text(encoding="utf-8")
    for module in ("", ".training", ".edge"):
        for name in importlib.import_module(f"keras_resnet{module}").__all__:
            assert re.search(rf"[ .]{name}$", reference, re.M), (module, name)


def test_every_message_of_the_page_of_errors_is_in_the_code():
    text = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    messages = re.findall(r"^\| `(.+?)` \|", text, re.M)
    assert len(messages) > 25
    written = [(ROOT / "Makefile").read_text(encoding="utf-8")]
    for path in (ROOT / "keras_resnet").rglob("*.py"):
        written += [
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
    for message in messages:
        assert any(message in text for text in written), message
