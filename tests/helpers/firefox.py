"""Firefox of the system, driven by WebDriver BiDi, the protocol that it speaks itself.

Playwright drives a Firefox of its own build alone.
"""

import contextlib
import itertools
import json
import pathlib
import shutil
import subprocess
import time

import pytest

PROGRAMS = ("firefox-esr", "firefox")
READY = """async () => {
  while (!document.documentElement.dataset.state)
    await new Promise((resolve) => setTimeout(resolve, 20));
  return document.documentElement.dataset.state;
}"""


@contextlib.contextmanager
def opened(path, profile):
    """Yields the page of a file, with the method `evaluate` of Playwright's `Page`.

    The test is skipped where Firefox or the client is missing.

    Args:
        path: of the file.
        profile: an empty folder for what Firefox stores.
    """
    client = pytest.importorskip("websockets.sync.client")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("needs Firefox: apt-get install firefox-esr")
    command = [program, "--headless", "--remote-debugging-port=0"]
    command += ["--profile", profile]
    silent = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    firefox = subprocess.Popen(command, **silent)
    # Firefox says there where it listens.
    server = pathlib.Path(profile, "WebDriverBiDiServer.json")
    try:
        while not server.exists() or not (content := server.read_text()):
            assert firefox.poll() is None
            time.sleep(0.05)
        place = json.loads(content)
        address = f"ws://{place['ws_host']}:{place['ws_port']}/session"
        with client.connect(address, max_size=None) as socket:
            yield _Page(socket, path.as_uri())
    finally:
        firefox.kill()
        firefox.wait()


class _Page:
    def __init__(self, socket, address):
        self._socket = socket
        self._numbers = itertools.count()
        self._call("session.new", capabilities={})
        self._tab = self._call("browsingContext.create", type="tab")["context"]
        self._call(
            "browsingContext.navigate", context=self._tab, url=address, wait="complete"
        )
        self.evaluate(READY)

    def evaluate(self, function, argument=None):
        """Returns what a function of JavaScript, or its promise, gives."""
        # As JSON: BiDi wraps each value of an array in a type of its own.
        answer = self._call(
            "script.evaluate",
            expression=f"({function})({json.dumps(argument)}).then(JSON.stringify)",
            target={"context": self._tab},
            awaitPromise=True,
        )
        assert answer["type"] == "success", answer
        return json.loads(answer["result"]["value"])

    def _call(self, method, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(message))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:  # the others are events
                assert message["type"] == "success", message
                return message["result"]
