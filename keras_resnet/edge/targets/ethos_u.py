"""Arm's Ethos-U NPUs: Arm's compiler, Vela, compiles a .tflite for them.

Vela runs on any machine (`pip install ethos-u-vela`). It says which operators the NPU
takes, how much memory they need and how long it estimates them to run. Vela runs in a
process of its own because damaged files make it crash.
"""

import csv
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from keras_resnet.edge.targets.target import Target
from keras_resnet.runner.errors import UserError

_U55 = ("Ethos_U55_High_End_Embedded", "Shared_Sram")
_U65 = ("Ethos_U65_High_End", "Dedicated_Sram_384KB")
# {name: sections of Vela's Arm/vela.ini that its estimates are for}: the system (clocks
# and speeds of the memories) and the memory mode (what lies in which memory).
ACCELERATORS = {
    "ethos-u55-32": _U55,
    "ethos-u55-64": _U55,
    "ethos-u55-128": _U55,
    "ethos-u55-256": _U55,
    "ethos-u65-256": _U65,
    "ethos-u65-512": _U65,
}
# Operators that Vela 5.2 can put on an Ethos-U55 or U65 (vela --supported-ops-report).
OPERATORS = frozenset(
    """
    ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D
    DEPTHWISE_CONV_2D ELU EXP EXPAND_DIMS FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU
    LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK PAD PADV2
    PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE
    RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SLICE SOFTMAX SPLIT
    SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM TANH TILE TRANSPOSE
    TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK
    """.split()
)
TIMEOUT_SECONDS = 600


@dataclasses.dataclass(frozen=True)
class Summary:
    """What Vela says of one file."""

    accelerator: str  # one of `ACCELERATORS`
    cpu_operators: int  # number of operators left to the CPU
    # Number of operators compiled for the NPU. Vela splits and fuses operators, so this
    # may be more than the file has.
    npu_operators: int
    reasons: tuple  # one line for each operator left to the CPU
    sram_kib: float  # memory on the chip, in KiB
    off_chip_kib: float  # flash or DRAM, weights included, in KiB
    # Estimated time of one inference on the NPU alone, for the system and the memory
    # mode in `ACCELERATORS`.
    milliseconds: float

    @property
    def text(self):
        """The summary on one line."""
        operators = self.cpu_operators + self.npu_operators
        return (
            f"{self.accelerator}: {self.npu_operators} of {operators} operators on the "
            f"NPU, {self.sram_kib:.0f} KiB SRAM, {self.off_chip_kib:.0f} KiB off chip, "
            f"{self.milliseconds:.2f} ms estimated "
            f"({', '.join(ACCELERATORS[self.accelerator])})"
        )


def find_vela():
    """Returns the path of Vela beside this Python or on the PATH, or None."""
    folders = (os.path.dirname(sys.executable), os.environ.get("PATH", ""))
    return shutil.which("vela", path=os.pathsep.join(folders))


def compile_model(content, accelerator):
    """Compiles a .tflite for one of `ACCELERATORS`; returns (`Summary`, its bytes).

    Raises:
        UserError: Vela is missing, cannot read the file, or takes longer than
            `TIMEOUT_SECONDS`.
    """
    vela = find_vela()
    if vela is None:
        raise UserError(
            f"--target={accelerator} needs Arm's compiler: pip install ethos-u-vela"
        )
    system, memory_mode = ACCELERATORS[accelerator]
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        (folder / "model.tflite").write_bytes(content)
        command = [vela, "model.tflite", f"--accelerator-config={accelerator}"]
        command += ["--config=Arm/vela.ini", f"--system-config={system}"]
        command += [f"--memory-mode={memory_mode}", "--output-dir=."]
        try:
            done = subprocess.run(
                command,
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
        # Vela repeats names of the file, which may hold control characters.
        output = re.sub(r"[^\n -~]", "?", done.stdout)
        # Vela's exit code is 0 even where it could not read the file.
        tables = list(folder.glob("model_summary_*.csv"))
        compiled = folder / "model_vela.tflite"
        if done.returncode or not tables or not compiled.is_file():
            lines = output.strip().splitlines() or ["Vela printed nothing"]
            raise UserError(
                f"Vela cannot compile this file for {accelerator} (exit code "
                f"{done.returncode}): {lines[-1]}"
            )
        with open(tables[0], newline="", encoding="utf-8") as file:
            row = next(csv.DictReader(file))
        return _summary(accelerator, row, output), compiled.read_bytes()


def _compile_whole(accelerator, content):
    """Compiles a file that may leave no operator to the CPU; see `Target.compile`."""
    summary, compiled = compile_model(content, accelerator)
    if summary.cpu_operators:
        raise UserError(
            f"--target={accelerator} leaves {summary.cpu_operators} operators to the "
            f"CPU: {'; '.join(summary.reasons[:3])}"
        )
    return summary.text, compiled


TARGETS = {
    name: Target(
        integer=True,
        operators=OPERATORS,
        compile=functools.partial(_compile_whole, name),
        compiled_suffix="_vela",
    )
    for name in ACCELERATORS
}


def _summary(accelerator, row, output):
    """Reads Vela's table, and what the table lacks from its text."""
    number = {key: float(row[key]) for key in row if key.endswith("_memory_used")}
    reasons = re.findall(
        r"operator: (\S+), ofm: '(.*)'\s*\n\s*[-\s]*(?:Reason: )?(.*)", output
    )
    return Summary(
        accelerator=accelerator,
        cpu_operators=_count("CPU", output),
        npu_operators=_count("NPU", output),
        reasons=tuple(f"{name} ({tensor}): {why}" for name, tensor, why in reasons),
        sram_kib=number.pop("sram_memory_used"),
        off_chip_kib=sum(number.values()),
        milliseconds=1000 * float(row["inference_time"]),
    )


def _count(processor, output):
    found = re.search(rf"^{processor} operators = (\d+)", output, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"Vela's summary has no count of {processor} operators")
    return int(found[1])
