"""Compiles a .tflite for Arm's Ethos-U NPUs with Arm's compiler, Vela.

Vela runs on any machine (`pip install ethos-u-vela`) and says which operators the NPU
takes, how much memory they need and how long it estimates them to run. It runs in a
process of its own: damaged files make it crash.
"""

import csv
import dataclasses
import importlib.util
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError

_U55 = ("Ethos_U55_High_End_Embedded", "Shared_Sram")
_U65 = ("Ethos_U65_High_End", "Dedicated_Sram_384KB")
# Name: the sections of Vela's Arm/vela.ini that its estimates are for: a system
# (clocks, speeds of the memories) and what lies in which memory.
ACCELERATORS = {
    "ethos-u55-32": _U55,
    "ethos-u55-64": _U55,
    "ethos-u55-128": _U55,
    "ethos-u55-256": _U55,
    "ethos-u65-256": _U65,
    "ethos-u65-512": _U65,
}
TIMEOUT_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Summary:
    """What Vela says of one file.

    Attributes:
        accelerator: one of `ACCELERATORS`.
        system: section of Arm/vela.ini that the milliseconds are for.
        memory_mode: likewise.
        cpu_operators: left to the CPU.
        npu_operators: compiled for the NPU. Vela splits and fuses operators: these
            are more than the file has.
        reasons: one line for each operator left to the CPU.
        sram_kib: memory on the chip, KiB.
        off_chip_kib: flash or DRAM, weights included, KiB.
        milliseconds: estimated time of one inference on the NPU alone.
        multiply_adds: of one inference on the NPU.
    """

    accelerator: str
    system: str
    memory_mode: str
    cpu_operators: int
    npu_operators: int
    reasons: tuple
    sram_kib: float
    off_chip_kib: float
    milliseconds: float
    multiply_adds: int

    @property
    def text(self):
        """The summary on one line."""
        operators = self.cpu_operators + self.npu_operators
        return (
            f"{self.accelerator}: {self.npu_operators} of {operators} operators on the "
            f"NPU, {self.sram_kib:.0f} KiB SRAM, {self.off_chip_kib:.0f} KiB off chip, "
            f"{self.milliseconds:.2f} ms estimated ({self.system}, {self.memory_mode})"
        )


def command():
    """Returns the beginning of Vela's command line, or None where it is missing."""
    try:
        if importlib.util.find_spec("ethosu.vela"):
            return [sys.executable, "-m", "ethosu.vela"]
    except ModuleNotFoundError:
        pass
    path = shutil.which("vela")
    return path and [path]


def compile_model(content, accelerator):
    """Compiles a file.

    Args:
        content: bytes of a .tflite.
        accelerator: one of `ACCELERATORS`.

    Returns:
        (`Summary`, bytes of the compiled .tflite).

    Raises:
        UserError: Vela is missing, cannot read the file, or takes longer than
            `TIMEOUT_SECONDS`.
    """
    if accelerator not in ACCELERATORS:
        raise unknown("Ethos-U accelerator", accelerator, ACCELERATORS)
    vela = command()
    if vela is None:
        raise UserError(
            f"{accelerator} needs Arm's compiler: pip install ethos-u-vela (or "
            'pip install -e ".[vela]")'
        )
    system, memory_mode = ACCELERATORS[accelerator]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "model.tflite").write_bytes(content)
        try:
            done = subprocess.run(
                [
                    *vela,
                    "model.tflite",
                    f"--accelerator-config={accelerator}",
                    "--config=Arm/vela.ini",
                    f"--system-config={system}",
                    f"--memory-mode={memory_mode}",
                    "--output-dir=.",
                ],
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                timeout=TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"Vela took longer than {TIMEOUT_SECONDS} s for {accelerator}: "
                "compile the file by hand"
            ) from error
        # It repeats names of the file, which are not ours.
        output = re.sub(r"[^\n -~]", "?", done.stdout)
        # Its exit code is 0 even where it could not read the file.
        tables = list(folder.glob("model_summary_*.csv"))
        compiled = folder / "model_vela.tflite"
        if done.returncode or not tables or not compiled.is_file():
            lines = output.strip().splitlines() or ["it said nothing"]
            raise UserError(
                f"Vela cannot compile this file for {accelerator} (exit code "
                f"{done.returncode}): {lines[-1]}"
            )
        with open(tables[0], newline="", encoding="utf-8") as file:
            row = next(csv.DictReader(file))
        summary = _summary(accelerator, row, output)
        return summary, compiled.read_bytes()


def _summary(accelerator, row, output):
    """Reads Vela's table, and from its text what the table lacks."""
    number = {key: float(row[key]) for key in row if key.endswith("_memory_used")}
    reasons = re.findall(
        r"operator: (\S+), ofm: '(.*)'\s*\n\s*[-\s]*(?:Reason: )?(.*)", output
    )
    return Summary(
        accelerator=accelerator,
        system=row["system_config"],
        memory_mode=row["memory_mode"],
        cpu_operators=_count("CPU", output),
        npu_operators=_count("NPU", output),
        reasons=tuple(f"{name} ({tensor}): {why}" for name, tensor, why in reasons),
        sram_kib=number.pop("sram_memory_used"),
        off_chip_kib=sum(number.values()),
        milliseconds=1000 * float(row["inference_time"]),
        multiply_adds=int(row["nn_macs"]),
    )


def _count(processor, output):
    found = re.search(rf"^{processor} operators = (\d+)", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"Vela's summary has no count of {processor} operators")
    return int(found[1])
