"""TensorFlow Lite for Microcontrollers (TFLM): C++ for devices without an OS.

It computes in integers here: its kernels take no uint8 scores from floating point, no
float16 and no float activations with int8 weights. TFLM ignores the versions of
operators and refuses types and options when it prepares a file, so its interpreter
(package `tflite-micro`) has the last word. It runs in a process of its own because it
ends the process on damaged files, and because only stderr tells the size of the arena.
"""

import importlib.util
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.targets import micro_program
from keras_resnet.edge.targets.target import Target
from keras_resnet.runner.errors import UserError

# The methods of TFLM's `MicroMutableOpResolver` that add an operator of TFLite.
_METHODS = """
    AddAbs AddAdd AddAddN AddArgMax AddArgMin AddAssignVariable AddAveragePool2D
    AddBatchMatMul AddBatchToSpaceNd AddBroadcastArgs AddBroadcastTo AddCallOnce AddCast
    AddCeil AddConcatenation AddConv2D AddCos AddCumSum AddDepthToSpace
    AddDepthwiseConv2D AddDequantize AddDiv AddDynamicUpdateSlice AddElu
    AddEmbeddingLookup AddEqual AddExp AddExpandDims AddFill AddFloor AddFloorDiv
    AddFloorMod AddFullyConnected AddGather AddGatherNd AddGreater AddGreaterEqual
    AddHardSwish AddIf AddL2Normalization AddL2Pool2D AddLeakyRelu AddLess AddLessEqual
    AddLog AddLogSoftmax AddLogicalAnd AddLogicalNot AddLogicalOr AddLogistic
    AddMaxPool2D AddMaximum AddMean AddMinimum AddMirrorPad AddMul AddNeg AddNotEqual
    AddPack AddPad AddPadV2 AddPrelu AddQuantize AddReadVariable AddReduceAll
    AddReduceMax AddReduceMin AddRelu AddRelu6 AddReshape AddResizeBilinear
    AddResizeNearestNeighbor AddReverseV2 AddRound AddRsqrt AddSelectV2 AddShape AddSin
    AddSlice AddSoftmax AddSpaceToBatchNd AddSpaceToDepth AddSplit AddSplitV AddSqrt
    AddSquare AddSquaredDifference AddSqueeze AddStridedSlice AddSub AddSum AddSvdf
    AddTanh AddTranspose AddTransposeConv AddUnidirectionalSequenceLSTM AddUnpack
    AddVarHandle AddWhile AddZerosLike
""".split()
_BY_LETTERS = {method[len("Add") :].upper(): method for method in _METHODS}
# {operator in TFLite's schema: the method that adds it}.
OPERATORS = {
    name: _BY_LETTERS[name.replace("_", "")]
    for name in operators.version_table()
    if name.replace("_", "") in _BY_LETTERS
}
# More than any network of the zoo needs, so that the interpreter says how much it is.
ARENA_LIMIT_BYTES = 1 << 28
# Multiplications that the check may cost: some ten seconds of TFLM's kernels.
CHECKED_MULTIPLY_ADDS = 4_000_000_000
# Kernels that round differently are a few hundredths of a step apart on average.
TOLERATED_MEAN_STEPS = 1
TIMEOUT_SECONDS = 600


def is_installed():
    """Returns whether TFLM's interpreter is there."""
    return importlib.util.find_spec("tflite_micro") is not None


def interpret(content, images):
    """Runs a file on raw images in TFLM's interpreter and in LiteRT.

    Args:
        content: bytes of a .tflite with uint8 scores.
        images: uint8 array (images, height, width, 3), the first of which are taken:
            as many as `CHECKED_MULTIPLY_ADDS` allow, but one at least.

    Returns:
        dict that JSON can hold: `arena_bytes`, the memory that TFLM's reference kernels
        needed on this machine, without the model; `scratch_bytes`, what CMSIS-NN may
        take besides; the number of `images`; and what `compare` returns,
        `with_reference` kernels of LiteRT and `with_default`.

    Raises:
        UserError: the interpreter is missing, cannot run the file, or computes
            something else than LiteRT.
    """
    graph = tflite_graph.read(content)
    work = sum(map(operators.multiply_adds, graph.operators))
    images = images[: max(1, CHECKED_MULTIPLY_ADDS // max(1, work))]
    scores, arena_bytes = run(content, images)
    with_reference = compare(scores, litert_scores(content, images, reference=True))
    if with_reference["mean_steps"] > TOLERATED_MEAN_STEPS:
        raise UserError(
            "--target=tflite_micro: TFLM's interpreter does not compute what LiteRT "
            f"does: the scores of {len(images)} images are "
            f"{with_reference['mean_steps']:.1f} steps of 1/256 apart on average. "
            "Build the model of other layers, or use --target=litert"
        )
    return {
        "arena_bytes": arena_bytes,
        "scratch_bytes": micro_program.scratch_bytes(graph),
        "images": len(images),
        "with_reference": with_reference,
        "with_default": compare(scores, litert_scores(content, images)),
    }


def program(content, sketch, arena_bytes, **about):
    """Returns the files of a sketch, {name of the file: text}.

    Args:
        content: bytes of a .tflite.
        sketch: name of the sketch and of its folder.
        arena_bytes: what `interpret` measured.
        **about: the other fields of `micro_program.Program`.
    """
    names = {operator.name for operator in tflite_graph.read(content).operators}
    methods = tuple(sorted(OPERATORS[name] for name in names))
    made = micro_program.Program(
        content=content, methods=methods, arena_bytes=arena_bytes, **about
    )
    return micro_program.files(made, sketch)


def run(content, images):
    """Returns what TFLM's interpreter computes, and the bytes of arena that it needed.

    Args:
        content: bytes of a .tflite.
        images: uint8 array (images, height, width, 3).

    Returns:
        (array (images, ...) of the type of the output, int).

    Raises:
        UserError: the interpreter is missing or cannot run the file.
    """
    if not is_installed():
        raise UserError(
            "--target=tflite_micro needs TFLM's interpreter (Linux on x86-64): "
            'pip install "keras-resnet-zoo[micro]"'
        )
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        paths = [folder / name for name in ("model.tflite", "images.npy", "scores.npy")]
        paths[0].write_bytes(content)
        np.save(paths[1], images)
        command = [sys.executable, "-m", "keras_resnet.edge.targets.tflm_process"]
        try:
            done = subprocess.run(
                [*command, *map(str, paths), str(ARENA_LIMIT_BYTES)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                timeout=TIMEOUT_SECONDS,
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(
                f"TFLM's interpreter took longer than {TIMEOUT_SECONDS} s: take fewer "
                "--report_examples, or a smaller network"
            ) from error
        used = re.search(r"Arena allocation total (\d+) bytes", done.stderr)
        if done.returncode or used is None:
            raise UserError(
                "--target=tflite_micro: TFLM's interpreter cannot run the file (exit "
                f"code {done.returncode}): {_reason(done.stderr)}"
            )
        return np.load(paths[2]), int(used[1])


def litert_scores(content, images, reference=False):
    """Returns what LiteRT computes for raw images, by its default or reference kernels.

    On ARM and x86-64 the default is XNNPACK, where it has an operator.
    """
    kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
    interpreter = Interpreter(
        model_content=content, num_threads=1, experimental_op_resolver_type=kernels
    )
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]["index"]
    output = interpreter.get_output_details()[0]["index"]
    scores = []
    for image in images:
        interpreter.set_tensor(given, image[None])
        interpreter.invoke()
        scores.append(interpreter.get_tensor(output)[0].copy())
    return np.stack(scores)


def compare(ours, theirs):
    """Compares uint8 scores, two arrays (images, classes).

    Returns:
        dict: the largest and the mean difference of a score in steps of the output, the
        number of images all of whose scores are equal, and the share of equal top-1.
    """
    steps = np.abs(ours.astype(int) - theirs.astype(int))
    return {
        "max_steps": int(steps.max()),
        "mean_steps": float(steps.mean()),
        "equal_images": int((steps.max(-1) == 0).sum()),
        "top1_agreement": float(np.mean(ours.argmax(-1) == theirs.argmax(-1))),
    }


def _reason(stderr):
    """Returns the lines of TFLM's stderr as one line."""
    # TFLM repeats names of the file, which may hold control characters.
    lines = re.sub(r"[^\n -~]", "?", stderr).strip().splitlines()
    return "; ".join(line.strip() for line in lines[-3:]) or "it printed nothing"


TARGETS = {
    "tflite_micro": Target(
        integer=True,
        operators=frozenset(OPERATORS),
        interpret=interpret,
        program=program,
    )
}
