"""Whether a target can run a .tflite, judged from the file alone.

    check(content, "tflite_runtime").problems

is empty for a file that the target runs. To add a target, write a module beside this
one that describes it and add its `TARGETS` to those here.
"""

import dataclasses
import itertools

from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.targets import (
    edgetpu,
    ethos_u,
    litert,
    tflite_micro,
    tflite_runtime,
)
from keras_resnet.edge.targets.target import Target
from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError

TARGETS = {
    **litert.TARGETS,
    **tflite_runtime.TARGETS,
    "edgetpu": Target(integer=True),  # edgetpu.check has its operators and more
    **ethos_u.TARGETS,
    **tflite_micro.TARGETS,
}


@dataclasses.dataclass(frozen=True)
class Check:
    """What `check` finds; `dataclasses.asdict` turns it into JSON."""

    target: str  # one of `TARGETS`
    # Why the target cannot run the file, one line each; empty if it can.
    problems: tuple
    operators: tuple  # of `operators.Operators`, the most frequent first
    # The first TensorFlow Lite that computes every operator correctly, or None if that
    # is not known.
    oldest_runtime: str | None
    float_tensors: tuple  # names of the floating-point tensors
    # of `operators.FloatOperators`: what computes in floating point.
    float_operators: tuple
    dynamic_tensors: tuple  # names of the tensors without a fixed size
    # Multiplications in one inference, of convolutions and matrix products.
    multiply_adds: int
    file_bytes: int  # size of the file in bytes
    edgetpu_operators: int  # how many operators would run on an Edge TPU
    edgetpu_likely: int  # how many of those are only likely to
    # Whether these figures are an estimate. They are, unless the file comes from
    # Google's compiler.
    edgetpu_estimate: bool
    on_chip_bytes_low: int  # what their parameters need of its 8 MiB at least
    on_chip_bytes_high: int  # what their parameters need at most
    fits_on_chip: bool  # whether 8 MiB are enough for that; otherwise they are streamed


def find(name):
    """Returns the `Target` of a name; raises `UserError` if there is none."""
    if not isinstance(name, str) or name not in TARGETS:
        raise unknown("target", name, TARGETS)
    return TARGETS[name]


def check(content, target="litert", layers=(), cpu_end=()):
    """Checks the bytes of a .tflite against one of `TARGETS`; returns a `Check`.

    `layers` are the names of the Keras model's layers, to say what is in floating
    point. `cpu_end` are names of operators that may stay on the CPU beside an Edge TPU
    if the file ends with them.

    Raises:
        UserError: there is no such target, or the file is damaged.
    """
    wanted = find(target)
    try:
        graph = tflite_graph.read(content)
        on_edgetpu = edgetpu.check(content)
    except ValueError as error:
        raise UserError(str(error)) from error
    rows = operators.summarize(graph)
    used = _used(graph)
    floats = tuple(tensor.name for tensor in used if operators.is_float(tensor))
    in_float = operators.in_float(graph, layers)
    dynamic = tuple(tensor.name for tensor in used if tensor.dynamic)
    problems = []
    if dynamic:
        problems.append(_tensors("without a fixed size", dynamic))
    if floats and wanted.integer:
        problems.append(_float_problem(in_float, operators.computing(rows)))
    said = _with_floats(graph) if wanted.integer else set()
    if target == "edgetpu":
        ends = itertools.takewhile(
            lambda verdict: verdict.operator in cpu_end, reversed(on_edgetpu.verdicts)
        )
        said = said | {verdict.index for verdict in ends}
        problems += edgetpu.grouped(
            verdict
            for verdict in on_edgetpu.verdicts
            if not verdict.maps and verdict.index not in said
        )
    else:
        left = [op for op in graph.operators if op.index not in said]
        left_rows = operators.summarize(dataclasses.replace(graph, operators=left))
        found = (_problem(row, wanted) for row in left_rows)
        problems += [problem for problem in found if problem]
    if graph.subgraphs > 1:
        problems.append(f"{graph.subgraphs} graphs in the file: control flow")
    return Check(
        target=target,
        problems=tuple(problems),
        operators=rows,
        oldest_runtime=operators.newest([row.oldest_runtime for row in rows]),
        float_tensors=floats,
        float_operators=in_float,
        dynamic_tensors=dynamic,
        multiply_adds=sum(row.multiply_adds for row in rows),
        file_bytes=len(content),
        edgetpu_operators=on_edgetpu.mapped,
        edgetpu_likely=on_edgetpu.likely,
        edgetpu_estimate=not on_edgetpu.compiled,
        on_chip_bytes_low=on_edgetpu.on_chip_bytes_low,
        on_chip_bytes_high=on_edgetpu.on_chip_bytes_high,
        fits_on_chip=on_edgetpu.fits,
    )


def refusal(found, quantize):
    """Returns the `UserError` for a `Check` with problems.

    It says what to do about an export with `quantize`, one of `edge.QUANTIZATIONS`.
    """
    problems, needs_integers = found.problems, TARGETS[found.target].integer
    way_on = "Build the model of other layers"
    if needs_integers and quantize not in ("int8", "qat"):
        problems, way_on = problems[:1], "Use --quantize=int8"
    elif needs_integers and found.float_operators:
        way_on = (
            "TensorFlow Lite has no integer form of them here: build the model of "
            "other layers (BatchNormalization instead of another normalization, relu "
            "instead of gelu)"
        )
        if quantize == "qat":
            way_on = (
                "qat.py left them in float: give it no --float_layers, build the model "
                "of other layers"
            )
    if found.target != "litert":
        way_on += ", or use --target=litert"
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return UserError(
        f"--target={found.target} cannot run --quantize={quantize} of this model: "
        f"{'; '.join(problems[:3])}{more}. {way_on}"
    )


def _used(graph):
    """Returns the tensors that the graph reads or writes, in their order."""
    used = {tensor for part in (graph, *graph.operators) for tensor in part.inputs}
    used |= {tensor for part in (graph, *graph.operators) for tensor in part.outputs}
    return [tensor for tensor in graph.tensors if tensor in used]


def _tensors(what, names):
    # Fused operators have names of hundreds of letters; the end tells them apart.
    shown = ", ".join(repr(name[-40:]) for name in names[:3])
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} tensors {what}: {shown}{more}"


def _float_problem(in_float, computing):
    text = "conversions of activations"
    if in_float:
        text = operators.float_text(in_float, computing)
    return f"floating point in {text}, and the target computes in integers only"


def _with_floats(graph):
    """Returns the indices of the operators that read or write floating point."""
    return {
        operator.index
        for operator in graph.operators
        if any(map(operators.is_float, (*operator.inputs, *operator.outputs)))
    }


def _problem(row, target):
    """Returns why a target does not have these operators, or None."""
    what = f"{row.count} x {row.name} version {row.version}"
    if row.oldest_runtime is None:
        return f"{what}: no operator that TensorFlow Lite is known to have"
    if target.operators is not None and row.name not in target.operators:
        return f"{what}: not among the target's operators"
    newest = target.newest_runtime
    parts = operators.version_parts
    if newest and parts(row.oldest_runtime) > parts(newest):
        return f"{what}: needs TensorFlow Lite {row.oldest_runtime}, it has {newest}"
    return None
