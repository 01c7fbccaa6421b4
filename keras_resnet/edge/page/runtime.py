"""LiteRT for browsers: npm's package @litertjs/core, one version of it."""

import hashlib
import pathlib

from keras_resnet.runner.errors import UserError

VERSION = "2.5.3"
PACKAGES = (f"@litertjs/core@{VERSION}", f"@litertjs/wasm-utils@{VERSION}")
# What goes into a page: the path in `node_modules`, and its SHA-256. "compat" is the
# build without relaxed SIMD, which not every browser has, and whose results depend on
# the processor.
FILES = {
    "core": (
        "@litertjs/core/dist/index.js",
        "e7daccc3a31eef890848a737ccb863ded5f046a6b40c3fdc0556495adeb5d9b3",
    ),
    "helpers": (
        "@litertjs/wasm-utils/dist/index.js",
        "e0e20bc28ab001ac732cf40d15b6eebd24fb0deaeb95eeba5100f51eebf015f2",
    ),
    "loader": (
        "@litertjs/core/wasm/litert_wasm_compat_internal.js",
        "4d8f894b7883654fd6e8439730aa41e79ceaab7d19184fc4f1f0b0f1a2a2c8a5",
    ),
    "wasm": (
        "@litertjs/core/wasm/litert_wasm_compat_internal.wasm",
        "5255c8ad06eabdbd2522cdebf6b22fc10faf74625c23a49b9e072570cd1fa41c",
    ),
}


def folder():
    """Returns the folder that npm installs the runtime into, for all projects."""
    return pathlib.Path.home() / ".cache" / "keras_resnet" / f"litertjs-{VERSION}"


def install_command():
    """Returns the command that fetches the runtime, as a list of its words."""
    return ["npm", "install", "--prefix", str(folder()), *PACKAGES]


def read():
    """Returns the files of the runtime, {name: bytes}.

    Raises:
        UserError: the runtime is not installed, or a file of it is not the one that
            was tested.
    """
    found = {}
    for name, (path, sha256) in FILES.items():
        path = folder() / "node_modules" / path
        try:
            found[name] = path.read_bytes()
        except FileNotFoundError as error:
            raise UserError(
                "a page needs LiteRT for browsers (Apache-2.0, 12 MB). Fetch it once: "
                + " ".join(install_command())
            ) from error
        received = hashlib.sha256(found[name]).hexdigest()
        if received != sha256:
            raise UserError(
                f"{path}: not the file of {PACKAGES[0]}: expected SHA-256 {sha256}, "
                f"received {received}. Remove {folder()}, then: "
                + " ".join(install_command())
            )
    return found
