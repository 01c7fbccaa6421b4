"""Finds a published weight file, in the package or by a download, and checks it.

Environment variables:
    KERAS_HOME: holds `models/`, the cache; a file put there by hand is used as
        if it had been downloaded. Default: ~/.keras, as Keras has it.
    HF_ENDPOINT, HF_HOME, HF_TOKEN: as huggingface_hub has them.
    HF_HUB_OFFLINE: 1: nothing is downloaded from anywhere.
    KERAS_RESNET_MIRROR: address of a folder with the files that `list_weights`
        names, under the names in the cache: every download goes there instead.
"""

import hashlib
import os
import pathlib
import re

import huggingface_hub
import keras

from keras_resnet.runner.errors import UserError
from keras_resnet.weights import registry
from keras_resnet.weights.formats import one_line

# Algorithms by the number of hexadecimal digits of their results.
ALGORITHMS = {32: "md5", 64: "sha256"}
# What a run that was pushed to the hub has: its model, and the hashes of the files as
# `sha256sum` prints them.
MODEL = "model.keras"
SUMS = "SHA256SUMS"


def fetch(entry):
    """Returns the local path of a `WeightFile`, downloading it at first use.

    Raises:
        UserError: the file cannot be had, or has the wrong hash; one line that
            names the file, its address and the path where it may be put by
            hand. Nothing damaged is left in the cache.
    """
    if entry.shipped:
        return _in_package(entry)
    home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
    home = os.path.abspath(os.path.expanduser(home))
    path = os.path.join(home, "models", entry.file)
    if os.path.isfile(path) and _is_whole(path, entry):
        return path
    mirror = os.environ.get("KERAS_RESNET_MIRROR")
    on_hub = entry.source.startswith(registry.HUB) and not mirror
    if on_hub:
        repository, revision = hub_repository(entry.source)
        address = hub_address(repository, registry.HUB_FILE, revision)
    else:
        address = f"{mirror.rstrip('/')}/{entry.file}" if mirror else entry.source
    try:
        if on_hub:
            return hub_file(repository, registry.HUB_FILE, revision)
        _download(address, path, entry)
    except Exception as error:  # one line instead of each library's own kind
        raise UserError(
            f"Cannot download the weights {entry.name}: {one_line(error)}. "
            f"Without a network, put the file at {path}. Received: {address}"
        ) from error
    return path


def _in_package(entry):
    path = str(registry.PACKAGE / entry.source)
    there = os.path.isfile(path)
    if there and _is_whole(path, entry):
        return path
    problem = f"are damaged: {_must_be(entry)}" if there else "are missing"
    raise UserError(
        f"The weights {entry.name} {problem}. Install keras-resnet-zoo again. "
        f"Received: {path!r}"
    )


def _is_whole(path, entry):
    """Whether a file has the registered hash, where there is one."""
    if entry.digest is None:
        return True
    return entry.digest == _digest(path, ALGORITHMS[len(entry.digest)])


def _must_be(entry):
    return f"the {ALGORITHMS[len(entry.digest)].upper()} must be {entry.digest}"


def hub_repository(source):
    """Splits hf://owner/repo[@revision]; returns (owner/repo, revision)."""
    repository, _, revision = source.removeprefix(registry.HUB).partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UserError(
            "`weights` of a hub repository is written hf://owner/repo or "
            f"hf://owner/repo@revision. Received: {source!r}"
        )
    return repository, revision or "main"


def hub_address(repository, name, revision):
    """Returns the address of a file of a hub repository."""
    return f"{hub_endpoint()}/{repository}/resolve/{revision}/{name}"


def hub_endpoint():
    """Returns the address of the hub."""
    # Read here, not when huggingface_hub was imported.
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_file(repository, name, revision):
    """Returns the path of a hub repository's file in huggingface_hub's cache.

    A file that is there stays in use until it is removed, even where the hub has
    a newer one: name another revision to have that. A damaged one is removed, and
    `UserError` raised.
    """
    path = huggingface_hub.try_to_load_from_cache(repository, name, revision=revision)
    # Asking the hub first would cost a cached file half a minute of retries
    # where there is no network.
    if not isinstance(path, str):
        path = huggingface_hub.hf_hub_download(
            repository, name, revision=revision, endpoint=hub_endpoint()
        )
    # The cache names a large file by the SHA-256 that the hub announced.
    blob = os.path.realpath(path)
    announced = os.path.basename(blob)
    if re.fullmatch("[0-9a-f]{64}", announced) and announced != _digest(blob, "sha256"):
        os.remove(path)
        os.remove(blob)
        raise UserError("wrong hash (SHA-256), the download was damaged")
    return path


def hub_run(source):
    """Returns the path of the `.keras` file of a run that was pushed to the hub.

    Args:
        source: hf://owner/repo[@revision]. It is downloaded at first use; see
            `hub_file` for how long it is kept.

    Raises:
        UserError: the repository cannot be read, was not made by `keras_resnet.push`,
            or its file is damaged.
    """
    repository, revision = hub_repository(source)
    try:
        sums = pathlib.Path(hub_file(repository, SUMS, revision))
        # Of the same commit, whatever is pushed in between.
        path = hub_file(repository, MODEL, revision=sums.parent.name)
        listed = dict(
            line.split("  ", 1)[::-1]
            for line in sums.read_text(encoding="utf-8").splitlines()
        )
        if listed.get(MODEL) != _digest(path, "sha256"):
            raise UserError(f"{MODEL} has another hash than {SUMS} says")
    except Exception as error:  # huggingface_hub raises many kinds
        raise UserError(
            f"cannot read {hub_address(repository, SUMS, revision)}, which lists the "
            f"files of a run that `keras-resnet push` put there: {one_line(error)}. "
            f"Received: {source!r}"
        ) from error
    return path


def _download(address, path, entry):
    """Downloads to a file beside `path`, which appears whole or not at all."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "TRUE", "YES"):
        raise UserError("HF_HUB_OFFLINE is set and the file is not in the cache")
    directory, name = os.path.split(path)
    os.makedirs(directory, exist_ok=True)
    part = os.path.join(directory, f"{name}.{os.getpid()}.part")
    try:
        part_name = os.path.basename(part)
        keras.utils.get_file(
            part_name, address, cache_subdir=directory, force_download=True
        )
        if not _is_whole(part, entry):
            raise UserError(f"wrong hash, {_must_be(entry)}")
        os.replace(part, path)
    finally:
        if os.path.exists(part):
            os.remove(part)


def _digest(path, algorithm):
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
