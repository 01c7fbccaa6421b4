"""Runs Google's compiler for the Edge TPU, edgetpu_compiler, and reads its log."""

import collections
import dataclasses
import pathlib
import platform
import re
import shutil
import subprocess
import tempfile

from keras_resnet import files
from keras_resnet.edge.targets import edgetpu
from keras_resnet.runner.errors import UserError

COMPILE_SECONDS = 600
HOW_TO_GET = (
    "it runs on x86-64 Debian and Ubuntu: add 'deb https://packages.cloud.google.com/"
    "apt coral-edgetpu-stable main' to apt's sources and apt-get install "
    "edgetpu-compiler (https://coral.ai/docs/edgetpu/compiler)"
)


@dataclasses.dataclass(frozen=True)
class Compilation:
    """What edgetpu_compiler says of a file."""

    version: str  # of the compiler
    operators: tuple  # of (operator, count, status), as in its log
    on_chip_bytes: int | None  # parameters that are kept on the chip, or None
    streamed_bytes: int | None  # parameters that are streamed for each image, or None
    milliseconds: int | None  # time of the compilation, or None

    @property
    def mapped(self):
        """Number of operators that run on the Edge TPU."""
        return sum(n for _, n, status in self.operators if status == _MAPPED)

    def confirms(self, report):
        """Returns whether the compiler mapped what an `edgetpu.Report` says."""
        estimated = collections.Counter(v.operator for v in report.verdicts if v.maps)
        found = collections.Counter()
        for operator, count, status in self.operators:
            found[operator] += count * (status == _MAPPED)
        return found == estimated

    def lines(self, report):
        """Returns the log for people beside an `edgetpu.Report`: (name, text) pairs."""
        total = sum(count for _, count, _ in self.operators)
        verb = "confirmed" if self.confirms(report) else "corrected"
        text = f"{verb} by edgetpu_compiler {self.version}: "
        lines = [("edge tpu", text + edgetpu.totals(self.mapped, total))]
        if self.on_chip_bytes is not None and self.streamed_bytes is not None:
            on_chip, streamed = self.on_chip_bytes / 2**20, self.streamed_bytes / 2**20
            memory = f"{on_chip:.2f} MiB on chip, {streamed:.2f} MiB streamed"
            lines.append(("parameters", memory))
        return lines + [
            ("stays on cpu", f"{count} x {operator}: {status}")
            for operator, count, status in self.operators
            if status != _MAPPED
        ]


_MAPPED = "Mapped to Edge TPU"
_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def read_log(text):
    """Reads what edgetpu_compiler prints with -s, or the shorter *_edgetpu.log.

    Returns a `Compilation`; raises `ValueError` if there is no table of operators.
    """

    def found(pattern):
        match = re.search(pattern, text)
        return match and match.groups()

    def memory(name):
        value = found(rf"{name} model parameters: ([0-9.]+)([KMG]?i?B)\s")
        return value and round(float(value[0]) * _UNITS[value[1]])

    # The columns of the table are aligned: OPERATOR  COUNT  STATUS.
    rows = re.findall(r"^([A-Za-z_][\w-]*)\s+([0-9]{1,9})\s{2,}(\S.*?)\s*$", text, re.M)
    if not rows:
        raise ValueError("the compiler's log has no table of operators")
    time = found(r"Model compiled successfully in ([0-9]{1,9}) ms")
    return Compilation(
        version=(found(r"Edge TPU Compiler version (\S+)") or ("unknown",))[0],
        operators=tuple((name, int(count), status) for name, count, status in rows),
        on_chip_bytes=memory("On-chip memory used for caching"),
        streamed_bytes=memory("Off-chip memory used for streaming uncached"),
        milliseconds=time and int(time[0]),
    )


def compile_model(path):
    """Runs edgetpu_compiler on MODEL.tflite.

    Returns (path of MODEL_edgetpu.tflite in the same folder, `Compilation`).

    Raises:
        UserError: the compiler is not installed, and the text says how to get it; or
            it refuses the file, and the text has its complaint.
    """
    path = pathlib.Path(path)
    compiler = shutil.which("edgetpu_compiler")
    if compiler is None:
        machine = platform.machine()
        if machine not in ("x86_64", "AMD64"):
            raise UserError(
                f"edgetpu_compiler does not exist for this machine ({machine}): "
                f"compile on another machine and copy the file; {HOW_TO_GET}"
            )
        raise UserError(f"edgetpu_compiler is not installed; {HOW_TO_GET}")
    output = path.with_name(f"{path.stem}_edgetpu.tflite")
    with tempfile.TemporaryDirectory() as folder:
        # The file gets another name: the compiler reads a leading "-" as a flag.
        source = pathlib.Path(folder) / "model.tflite"
        shutil.copyfile(path, source)
        try:
            done = subprocess.run(
                [compiler, "-s", "-o", folder, str(source)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=COMPILE_SECONDS,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise UserError(f"edgetpu_compiler does not run: {error}") from error
        text = done.stdout.decode("utf-8", "replace")
        compiled = source.with_name("model_edgetpu.tflite")
        if done.returncode or not compiled.is_file():
            wrong = re.findall("(?im)^.*(?:error|fail|invalid|not |abort).*$", text)
            reason = "; ".join(wrong[:3]) or f"exit code {done.returncode}"
            raise UserError(f"edgetpu_compiler refuses {path}: {reason}")
        try:
            compilation = read_log(text)
        except ValueError as error:
            raise UserError(f"{path} was compiled, but {error}") from error
        with files.replacing(output) as temporary:
            shutil.copyfile(compiled, temporary)
    return output, compilation
