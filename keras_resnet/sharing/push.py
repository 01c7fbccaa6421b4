"""Uploads a run to the Hugging Face hub."""

from __future__ import annotations

import os
import re
import typing
from collections.abc import Iterable

import huggingface_hub
from huggingface_hub import errors, utils

from keras_resnet import files
from keras_resnet.errors import require
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import download, registry
from keras_resnet.weights.formats import one_line

if typing.TYPE_CHECKING:
    from keras_resnet.training.runs.run import Run

CARD = "README.md"


def push(
    run: Run | str | os.PathLike,
    repo: str,
    *,
    license: str | None = None,
    tflite: Iterable[str | os.PathLike] = (),
) -> str:
    """Puts a run on the Hugging Face hub, with a model card made from its report.

    The repository gets the model, what it was exported to, its labels and the card, all
    in one commit or none. It is created, as a public one, where there is none of that
    name; create it on the hub before to have a private one. Files of the same names
    are replaced, and .tflite files of an earlier push are removed.

    Args:
        run: a `Run` of `keras_resnet.training`, or the path of its folder.
        repo: "user/name", the repository on the hub.
        license: of the model, as the hub names licences: "apache-2.0", "mit", ...
            `None` leaves it out of the card.
        tflite: paths of .tflite files that were exported from the run to other places.
            Those in the folder of the run are pushed without.

    Returns:
        "hf://user/name@COMMIT", which `keras_resnet.load` and the `weights` of an entry
        point such as `keras_resnet.ResNet50` take.

    Raises:
        UserError: an argument is wrong, there is no token of the hub, or the hub
            refuses or cannot be reached. No file was pushed then.
        ImportError: the extra `train` or `edge` is not installed.
    """
    require("tensorflow", "train", "keras_resnet.push")
    require("ai_edge_litert", "edge", "keras_resnet.push")
    # Whoever has neither extra imports this module with the names of the package.
    from keras_resnet.sharing import card, contents
    from keras_resnet.training import checks

    checks.text("repo", repo)
    checks.text("license", license)
    if not _is_repository(repo):
        raise UserError(f"--repo must be user/name. Received: {repo!r}")
    found = contents.of_run(run, tflite)
    non_commercial = found.licence and "-nc" in found.licence
    if non_commercial and license and license.lower() != found.licence:
        raise UserError(
            f"the run started from weights under {found.licence}, and so is its model: "
            f"pass --license={found.licence}. Received: --license={license}"
        )
    if not huggingface_hub.get_token():
        raise UserError(
            "pushing needs a token of the Hugging Face hub that may write: make one at "
            "https://huggingface.co/settings/tokens and run `hf auth login`, or set "
            "HF_TOKEN"
        )
    uploads = found.files()
    uploads[CARD] = card.text(found, repo, license).encode()
    listing = [
        f"{files.sha256(path)}  {name}\n"
        for name, path in uploads.items()
        if name == download.MODEL or name.endswith(".tflite")
    ]
    uploads[download.SUMS] = "".join(listing).encode()
    address = download.hub_endpoint()
    try:
        commit = _commit(huggingface_hub.HfApi(address), repo, uploads)
    except Exception as error:  # huggingface_hub and its HTTP client raise many kinds
        raise UserError(
            f"no file was pushed to {address}/{repo}: {one_line(error)}"
        ) from error
    return f"{registry.HUB}{repo}@{commit}"


def _is_repository(name):
    """Returns whether the hub takes a name, and it has a user in front."""
    try:
        utils.validate_repo_id(name)
    except errors.HFValidationError:
        return False
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def _commit(api, repo, uploads):
    """Makes one commit of {name: path or bytes} and returns its hash."""
    api.create_repo(repo, exist_ok=True)
    # They would contradict the new card.
    stale = [
        name
        for name in api.list_repo_files(repo)
        if name.endswith(".tflite") and name not in uploads
    ]
    operations = [
        *(huggingface_hub.CommitOperationAdd(*upload) for upload in uploads.items()),
        *(huggingface_hub.CommitOperationDelete(name) for name in stale),
    ]
    message = "Push a run with keras_resnet"
    return api.create_commit(repo, operations, commit_message=message).oid
