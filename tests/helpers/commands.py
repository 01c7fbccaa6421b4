"""Runs our commands and pieces of code as a user does, in a process of their own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def run_command(script, *flags, cwd=None):
    """Runs a script of the checkout, or "benchmarks.NAME" as a module."""
    is_module = not str(script).endswith(".py")
    target = ["-m", script] if is_module else [ROOT / script]
    return run_python(*target, *flags, cwd=cwd)


def run_code(code, cwd=None, **environment):
    """Runs code."""
    return run_python("-c", code, cwd=cwd, **environment)


def run_python(*arguments, cwd=None, **environment):
    """Runs Python with this checkout in front of what is installed."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "2",
            **environment,
        },
    )


def one_error(done):
    """Returns the line of a command that failed as a user's error must."""
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]
