"""Chromium of the system, which opens a page from disk as people do."""

import base64
import contextlib
import io
import shutil

import numpy as np
import pytest

from keras_resnet.edge.page import runtime
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.images import prepare, read_image

FAKE_CAMERA = "--use-fake-device-for-media-stream"
ALLOWED = "--use-fake-ui-for-media-stream"  # as if people had said yes
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# Asks the network of a page as the page itself does, and returns all that it answers.
ASK = """async (content) => {
  const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
  const { outputs, seen, size, milliseconds } = await network.ask(new Blob([bytes]));
  return { outputs: outputs.map(({ data }) => Array.from(data)), size, milliseconds,
    seen: Array.from(seen.data), width: seen.width, height: seen.height };
}"""


def program():
    """Returns the path of Chromium; skips the test where something is missing."""
    pytest.importorskip("playwright", reason="needs playwright: pip install playwright")
    found = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if found is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    try:
        runtime.read()
    except UserError as error:
        pytest.skip(str(error))
    return found


@contextlib.contextmanager
def chromium():
    """Yields a function that starts Chromium with these arguments.

    It returns Playwright's `Browser`. Playwright itself can only be started once.
    """
    path = program()
    from playwright import sync_api  # optional: `program` skips without

    with sync_api.sync_playwright() as playwright:
        started = []

        def start(*arguments):
            arguments = [FAKE_CAMERA, *arguments]
            browser = playwright.chromium.launch(executable_path=path, args=arguments)
            started.append(browser)
            return browser

        yield start
        for browser in started:
            browser.close()


@contextlib.contextmanager
def opened(browser, path, script=None, **options):
    """Yields Playwright's `Page` of a file; at the end, nothing was fetched or failed.

    Args:
        browser: Playwright's `Browser`.
        path: of the file.
        script: JavaScript to run before those of the page.
        options: of the browser's context: the size of the screen, dark colours.
    """
    # A context of its own for each page would be a window more.
    shared = browser.contexts[0] if browser.contexts else browser.new_context()
    context = browser.new_context(**options) if options else shared
    page = context.new_page()
    asked, failed = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: failed.append(error))
    if script:
        page.add_init_script(script)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-state]", state="attached")
    yield page
    page.close()
    if options:
        context.close()
    assert not failed
    assert asked.pop(0) == path.as_uri()
    assert [url for url in asked if not url.startswith(("blob:", "data:"))] == []


def ask(page, content):
    """Returns what the network of a page answers for the bytes of an image file.

    A dict: `outputs` (float32 arrays), `seen` (uint8 array (height, width, 3)), `size`
    and `milliseconds`.
    """
    found = page.evaluate(ASK, base64.b64encode(content).decode())
    shape = found["height"], found["width"], 4
    found["seen"] = np.array(found["seen"], np.uint8).reshape(shape)[..., :3]
    found["outputs"] = [np.array(data, np.float32) for data in found["outputs"]]
    return found


def expected(content, model):
    """Returns the pixels that the runner feeds a model for an image file."""
    decoded = read_image(io.BytesIO(content), model)
    return prepare(decoded.image, model, decoded.box)
