"""Whether LiteRT runs a file: the oracle for graphs that are made or damaged."""

import subprocess
import sys

LOAD = """
import sys
from ai_edge_litert.interpreter import Interpreter, OpResolverType

for path in sys.argv[1:]:
    print("loading", flush=True)
    try:
        interpreter = Interpreter(
            path,
            num_threads=1,
            experimental_op_resolver_type=(
                OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            ),
        )
        interpreter.allocate_tensors()
        interpreter.invoke()
        print("ran", path, flush=True)
    except UnicodeDecodeError:  # a damaged name, which only Python looks at
        print("ran", path, flush=True)
    except (RuntimeError, ValueError) as error:
        print("refused", path, " ".join(str(error).split()), flush=True)
"""


def run_by_litert(contents, folder):
    """Returns for each file what its kernels made of it: "ran ...", or an error.

    They run in a process of their own, since a hostile file may crash them.
    """
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"{number}.tflite")
        paths[-1].write_bytes(content)
    ran, left = {}, list(map(str, paths))
    while left:
        done = subprocess.run(
            [sys.executable, "-c", LOAD, *left], capture_output=True, text=True
        )
        results = [line for line in done.stdout.splitlines() if line != "loading"]
        for line in results:
            ran[line.split()[1]] = line
        crashed = done.stdout.count("loading") - len(results)
        if crashed:
            ran[left[len(results)]] = "crashed"
        assert results or crashed, done.stderr
        left = left[len(results) + crashed :]
    return [ran[str(path)] for path in paths]
