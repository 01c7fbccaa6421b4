"""Downloads from a real HTTP server on this machine, good and bad."""

import dataclasses
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
from huggingface_hub import constants as hub_constants

import keras_resnet
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import download, registry
from tests.helpers import oracles

MODEL = "resnet18"
TAG = "a1_in1k"
FILE = f"{MODEL}.{TAG}.safetensors"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves `server.files`: {path: bytes}, as a plain server and as the hub do.

    `server.cut` is how many bytes of a body are held back, and
    `server.announced` the SHA-256 that the hub says a file has.
    """

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.respond(body=False)

    def do_GET(self):
        self.respond(body=True)

    def respond(self, body):
        self.server.requests.append((self.command, self.path))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        sha = self.server.announced or hashlib.sha256(content).hexdigest()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{sha}"')
        self.send_header("X-Linked-Etag", f'"{sha}"')
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content[: len(content) - self.server.cut])
            if self.server.cut:
                self.close_connection = True

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests = {}, []
    server.cut, server.announced = 0, None
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(autouse=True)
def empty_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for name in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "KERAS_RESNET_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    # huggingface_hub waits between its retries.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    (tmp_path / "keras").mkdir()


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "keras" / "models"


def entry_at(server, content, path="/weights/w.h5"):
    """A file as keras.applications publishes them: an address and an MD5."""
    server.files[path] = content
    return dataclasses.replace(
        registry.find("resnet50", "imagenet"),
        source=server.address + path,
        digest=hashlib.md5(content).hexdigest(),
    )


def fails(entry, *parts):
    with pytest.raises(UserError) as error:
        download.fetch(entry)
    message = str(error.value)
    assert "\n" not in message
    for part in (entry.name, *parts):
        assert part in message
    return message


def nothing_but(cache, *names):
    assert sorted(path.name for path in cache.iterdir()) == sorted(names)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# --- a plain server ---------------------------------------------------------


def test_a_file_is_downloaded_once_and_kept(server, cache):
    entry = entry_at(server, b"good weights")
    path = download.fetch(entry)
    assert path == str(cache / "w.h5")
    assert (cache / "w.h5").read_bytes() == b"good weights"
    assert download.fetch(entry) == path
    assert server.requests == [("GET", "/weights/w.h5")]
    nothing_but(cache, "w.h5")


def test_a_wrong_hash_is_refused_and_not_kept(server, cache):
    entry = entry_at(server, b"good weights")
    server.files["/weights/w.h5"] = b"evil weights"
    fails(entry, "MD5 must be", entry.digest, entry.source, str(cache / "w.h5"))
    nothing_but(cache)


def test_a_damaged_file_in_the_cache_is_replaced_only_by_a_good_one(server, cache):
    entry = entry_at(server, b"good weights")
    cache.mkdir()
    (cache / "w.h5").write_bytes(b"older weights of the same name")
    server.cut = 1
    fails(entry, entry.source)
    assert (cache / "w.h5").read_bytes() == b"older weights of the same name"
    server.cut = 0
    download.fetch(entry)
    assert (cache / "w.h5").read_bytes() == b"good weights"


def test_a_truncated_transfer_is_refused_and_not_kept(server, cache):
    entry = entry_at(server, b"good weights" * 1000)
    server.cut = 5000
    fails(entry, entry.source, str(cache / "w.h5"))
    nothing_but(cache)


def test_a_missing_file_names_what_to_do(server, cache):
    entry = entry_at(server, b"good weights")
    server.files.clear()
    fails(entry, "404", entry.source, str(cache / "w.h5"))
    nothing_but(cache)


def test_no_server_names_what_to_do(cache):
    entry = dataclasses.replace(
        registry.find("resnet50", "imagenet"),
        source=f"http://127.0.0.1:{free_port()}/w.h5",
    )
    fails(entry, "Connection refused", entry.source, str(cache / "w.h5"))
    # What the message says helps: the file, put there by hand.
    (cache / "w.h5").write_bytes(b"by hand")
    entry = dataclasses.replace(entry, digest=hashlib.md5(b"by hand").hexdigest())
    assert download.fetch(entry) == str(cache / "w.h5")


def test_offline_mode_downloads_nothing(server, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    fails(entry_at(server, b"good weights"), "HF_HUB_OFFLINE")
    assert server.requests == []


def test_a_mirror_serves_every_file_under_its_cache_name(server, cache, monkeypatch):
    monkeypatch.setenv("KERAS_RESNET_MIRROR", f"{server.address}/mirror/")
    server.files[f"/mirror/{FILE}"] = b"tensors"
    assert download.fetch(registry.find(MODEL, TAG)) == str(cache / FILE)
    entry = registry.find("resnet50", "imagenet")
    server.files[f"/mirror/{entry.file}"] = b"not those of 2018"
    fails(entry, entry.digest, f"{server.address}/mirror/{entry.file}")


# --- the hub ----------------------------------------------------------------


def on_hub(server, monkeypatch, content, name="model.safetensors"):
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    path = f"/timm/{MODEL}.{TAG}/resolve/main/{name}"
    server.files[path] = content
    return registry.find(MODEL, TAG)


def test_a_hub_file_is_downloaded_once_and_kept(server, monkeypatch):
    entry = on_hub(server, monkeypatch, b"hub weights")
    for _ in range(2):
        with open(download.fetch(entry), "rb") as file:
            assert file.read() == b"hub weights"
    assert [method for method, _ in server.requests] == ["HEAD", "GET"]


def test_a_hub_file_of_the_wrong_hash_is_refused_and_not_kept(
    server, monkeypatch, tmp_path
):
    entry = on_hub(server, monkeypatch, b"evil weights")
    server.announced = hashlib.sha256(b"good weights").hexdigest()
    fails(entry, "wrong hash", server.address, FILE)
    server.files[f"/timm/{MODEL}.{TAG}/resolve/main/model.safetensors"] = (
        b"good weights"
    )
    with open(download.fetch(entry), "rb") as file:
        assert file.read() == b"good weights"


def test_a_truncated_hub_transfer_is_refused(server, monkeypatch):
    entry = on_hub(server, monkeypatch, b"hub weights" * 1000)
    server.cut = 5000
    fails(entry, server.address, FILE)


def test_a_missing_hub_file_and_no_hub_name_what_to_do(server, monkeypatch, cache):
    entry = on_hub(server, monkeypatch, b"")
    server.files.clear()
    fails(entry, "404", f"{server.address}/timm/resnet18.a1_in1k/resolve/main/", FILE)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    fails(entry, str(cache / FILE))
    cache.mkdir()
    (cache / FILE).write_bytes(b"by hand")
    assert download.fetch(entry) == str(cache / FILE)


@pytest.mark.slow
def test_a_new_process_finds_downloads_and_loads_named_weights(server, monkeypatch):
    source = oracles.randomize(keras_resnet.ResNet18(weights=None), seed=6)
    import safetensors.numpy

    content = safetensors.numpy.save(oracles.torch_state(source))
    on_hub(server, monkeypatch, content)
    script = (
        "import keras_resnet; m = keras_resnet.ResNet18(weights='a1_in1k');"
        "print('sum', float(m.get_layer('conv1_conv').kernel.numpy().sum()))"
    )
    environment = os.environ | {
        "HF_HUB_CACHE": hub_constants.HF_HUB_CACHE,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    total = float(result.stdout.split("sum ")[1])
    expected = source.get_layer("conv1_conv").kernel.numpy().sum()
    np.testing.assert_allclose(total, expected, rtol=1e-5)


CONFIG = """{"architecture": "resnet18", "pretrained_cfg": {
    "input_size": [3, 96, 96], "crop_pct": 0.9, "interpolation": "bicubic",
    "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "license": "cc-by-nc-4.0"}}"""


def test_any_repository_in_timms_layout_loads(server, monkeypatch):
    import safetensors.numpy

    source = oracles.randomize(keras_resnet.ResNet18(weights=None, classes=3), seed=6)
    content = safetensors.numpy.save(oracles.torch_state(source))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    base = "/somebody/pets/resolve/v1"
    server.files[f"{base}/config.json"] = CONFIG.encode()
    server.files[f"{base}/model.safetensors"] = content
    with pytest.warns(UserWarning, match="non-commercial"):
        model = keras_resnet.ResNet18(weights="hf://somebody/pets@v1", classes=3)
    np.testing.assert_array_equal(
        model.get_layer("predictions").kernel, source.get_layer("predictions").kernel
    )
    assert model.preprocessing == keras_resnet.Preprocessing(
        (224, 224), (127.5,) * 3, (63.75,) * 3, "rgb", 0.9, "bicubic"
    )
    assert (model.labels, model.licence) == (None, "cc-by-nc-4.0")
    other = keras_resnet.ResNet18(
        weights="hf://somebody/pets@v1", classes=3, input_shape=(96, 96, 3)
    )
    assert other.preprocessing.input_size == (96, 96)
    with pytest.raises(UserError, match="for resnet18, not for resnet34.*Received"):
        keras_resnet.ResNet34(weights="hf://somebody/pets@v1")
    with pytest.raises(UserError, match="cannot read http.*config.json.*Received"):
        keras_resnet.ResNet18(weights="hf://somebody/others")
