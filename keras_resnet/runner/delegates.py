"""Delegates: libraries that run a model on another chip, such as the Edge TPU."""

import collections
import ctypes
import importlib
import os
import re
import sys

from keras_resnet.runner.runtime import SYSTEM, silenced_stderr

EDGETPU_LIBRARIES = {
    "linux": "libedgetpu.so.1",
    "darwin": "libedgetpu.1.dylib",
    "win32": "edgetpu.dll",
}
# Vendor and product on USB, before the first use and after it, and on PCIe.
EDGETPU_USB = ("1a6e:089a", "18d1:9302")
EDGETPU_PCI = "0x1ac1:0x089a"

Delegate = collections.namedtuple("Delegate", "name library options")


def choose_delegate(text, options, compiled):
    """Returns the `Delegate` that --delegate stands for, or None for the CPU.

    Raises:
        ValueError: it does not fit the model, which is `compiled` for the Edge TPU or
            not.
    """
    if text == "auto":
        text = "edgetpu" if compiled else "none"
    if text == "none":
        if compiled:
            raise ValueError(
                "compiled for the Edge TPU, which --delegate=none does not use; give "
                "the uncompiled file (the one without _edgetpu in its name)"
            )
        if options:
            raise ValueError("--delegate_options needs a --delegate to pass them to")
        return None
    match = re.match(r"edgetpu(?::((?:usb|pci)?(?::[0-9]+)?))?$", text)
    if match:
        if not compiled:
            raise ValueError(
                "not compiled for the Edge TPU, so all of it would run on the CPU; "
                "compile it with edgetpu_compiler, or leave --delegate out"
            )
        if match.group(1):
            options = dict(options, device=match.group(1))
        return Delegate(text, EDGETPU_LIBRARIES.get(sys.platform, ""), options)
    if os.path.isfile(text):
        return Delegate(text, os.path.abspath(text), options)
    raise ValueError(
        f"--delegate={text}: expected auto, none, edgetpu, edgetpu:usb, edgetpu:pci, "
        "edgetpu:usb:0, or the path of a library that exists"
    )


def load_delegate(delegate, interpreter_class, runtime):
    """Loads the library of a delegate for a runtime; it opens its device then.

    Raises:
        ValueError: it cannot be loaded, with what is missing.
    """
    try:
        # Asked first: where it fails, the runtime prints a second exception.
        library = ctypes.CDLL(delegate.library)
        library.tflite_plugin_create_delegate  # noqa: B018
        module = importlib.import_module(interpreter_class.__module__)
        with silenced_stderr():
            return module.load_delegate(delegate.library, delegate.options)
    except (OSError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        if not delegate.name.startswith("edgetpu"):
            text = f"delegate {delegate.name} cannot be loaded: {reason}"
            raise ValueError(text) from error
        checks = "; ".join(
            f"{'ok' if good else 'MISSING'}: {text}"
            for good, text in check_edgetpu(runtime)
        )
        raise ValueError(
            f"compiled for the Edge TPU, and no Edge TPU answers ({reason}); {checks}; "
            "or give the uncompiled file (the one without _edgetpu in its name)"
        ) from error


def check_edgetpu(runtime):
    """Lists what an Edge TPU needs: (whether it is there, what was found or a fix)."""
    checks = [check_edgetpu_library(runtime)]
    usb, pci = find_edgetpu_usb(), find_edgetpu_pci()
    for node in usb:
        fix = "install the udev rule of libedgetpu1-std, join its group with "
        fix += "`sudo usermod -aG plugdev $USER`, log in again, replug"
        checks.append(check_access("USB accelerator", node, fix))
    for node in pci:
        fix = "install gasket-dkms, then give /dev/apex_0 to your group by a udev rule"
        checks.append(check_access("PCIe accelerator", node, fix))
    if not usb + pci:
        ids = f"no {' or '.join(EDGETPU_USB)} on USB, no {EDGETPU_PCI} on PCIe"
        fix = "plug it into a USB 3 port that gives enough power"
        checks.append((False, f"device ({ids}): {fix}"))
    return checks


def check_edgetpu_library(runtime):
    """Checks that libedgetpu loads, and compares its version with the runtime's."""
    name = EDGETPU_LIBRARIES.get(sys.platform, "libedgetpu")
    try:
        library = ctypes.CDLL(name)
    except OSError as error:
        package = "`sudo apt install libedgetpu1-std` from Coral's repository"
        return False, f"library {name} ({error}): {package}"
    try:
        library.edgetpu_version.restype = ctypes.c_char_p
        version = library.edgetpu_version().decode("utf-8", "replace")
    except (AttributeError, UnicodeError):
        version = "of unknown version"
    fit = f"beside {runtime}"
    family, _, numbers = runtime.partition(" ")
    newer = tuple(map(int, re.findall("[0-9]+", numbers)[:2])) >= (2, 12)
    if newer or family == "ai-edge-litert":  # google-coral/edgetpu #812
        fit += ", which needs a community build: Google's is for TFLite before 2.12"
    return True, f"library {name} {version}, {fit}"


def check_access(what, node, fix):
    """Checks that the node of a device exists and may be written to."""
    if not os.path.exists(node):
        return False, f"{what} is plugged in, but its node {node} is missing: {fix}"
    if not os.access(node, os.R_OK | os.W_OK):
        return False, f"right to use the {what} at {node}: {fix}"
    return True, f"{what} at {node}"


def read_kernel_file(*path):
    """Reads a short file of the kernel; "" if there is none."""
    try:
        with open(os.path.join(*path)) as file:
            return file.read(64).strip()
    except (OSError, ValueError):
        return ""


def find_edgetpu_usb():
    """Lists the device nodes of Edge TPUs on USB."""
    folder = f"{SYSTEM}/sys/bus/usb/devices"
    nodes = []
    for name in sorted(os.listdir(folder) if os.path.isdir(folder) else ()):
        vendor, product, bus, device = (
            read_kernel_file(folder, name, file)
            for file in ("idVendor", "idProduct", "busnum", "devnum")
        )
        if f"{vendor}:{product}" in EDGETPU_USB:
            nodes.append(f"{SYSTEM}/dev/bus/usb/{bus.zfill(3)}/{device.zfill(3)}")
    return nodes


def find_edgetpu_pci():
    """Lists the device nodes of Edge TPUs on PCIe, as the driver numbers them."""
    folder = f"{SYSTEM}/sys/bus/pci/devices"
    found = [
        name
        for name in (os.listdir(folder) if os.path.isdir(folder) else ())
        if EDGETPU_PCI
        == ":".join(read_kernel_file(folder, name, id) for id in ("vendor", "device"))
    ]
    return [f"{SYSTEM}/dev/apex_{number}" for number in range(len(found))]
