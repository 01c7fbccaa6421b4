"""Estimates which operators of a .tflite run on a Coral Edge TPU.

    check(content).lines()

The rules for one operator are in `edgetpu_rules`; here is what follows for the whole
file: the part of the graph that maps, and the memory on the chip. Only Google's
compiler (`edgetpu_compiler`) knows for certain.
"""

import collections
import dataclasses

from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.targets import edgetpu_remedies, edgetpu_rules

COMPILED = "edgetpu-custom-op"
ON_CHIP_BYTES = 8 << 20
# The compiler pads parameters: in Coral's compiled convolutional networks they take
# 1.04 to 1.33 times their size in the .tflite.
PARAMETER_OVERHEAD = (1.04, 1.33)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What becomes of one operator."""

    index: int  # its position in the order of execution
    operator: str  # its name in TensorFlow Lite's schema; of a custom one its own name
    # None where it maps to the Edge TPU, and "likely" where it probably does. Otherwise
    # it stays on the CPU, because of its "operator" (the Edge TPU has none of this
    # name), "version", "type", "shape" or "limit", because no source says that it maps
    # ("uncertain"), or because an operator before it stays on the CPU ("partition").
    kind: str | None = None
    reason: str | None = None  # a sentence that says why; None where it maps
    remedy: str | None = None  # what to do about it, where that is known

    @property
    def maps(self):
        """Whether it runs on the Edge TPU, or is likely to."""
        return self.kind in (None, "likely")


@dataclasses.dataclass(frozen=True)
class Report:
    """What becomes of a file."""

    verdicts: tuple  # of `Verdict`, one for each operator
    # Whether the file comes from Google's compiler. Otherwise everything here is an
    # estimate.
    compiled: bool
    parameter_bytes: int  # size of the constants of the operators that map
    # What the parameters take on the chip at least. The chip holds activations too:
    # with large images, less than 8 MiB is left.
    on_chip_bytes_low: int
    on_chip_bytes_high: int  # what they take at most

    @property
    def mapped(self):
        """Number of operators that run on the Edge TPU, likely ones included."""
        return sum(verdict.maps for verdict in self.verdicts)

    @property
    def likely(self):
        """Number of operators among them that are only likely to."""
        return sum(verdict.kind == "likely" for verdict in self.verdicts)

    @property
    def complete(self):
        """Whether all operators map."""
        return self.mapped == len(self.verdicts) > 0

    @property
    def fits(self):
        """Whether the parameters stay on the chip; otherwise they may be streamed.

        False where nothing maps, and for a compiled file, which hides its parameters.
        """
        return 0 < self.on_chip_bytes_high <= ON_CHIP_BYTES

    @property
    def remedies(self):
        """What to do about operators that stay on the CPU, as lines."""
        found = [verdict.remedy for verdict in self.verdicts if verdict.remedy]
        return list(dict.fromkeys(found))

    @property
    def problems(self):
        """What keeps operators on the CPU, as lines: one for each name and kind."""
        return grouped(verdict for verdict in self.verdicts if not verdict.maps)

    def as_dict(self):
        """Returns a dict for JSON."""
        return {
            "estimate": not self.compiled,
            "operators": len(self.verdicts),
            "mapped": self.mapped,
            "likely": self.likely,
            "fits": self.fits,
            **dataclasses.asdict(self),
        }

    def lines(self):
        """Returns the report for people, as a list of (name, text)."""
        total = len(self.verdicts)
        if self.compiled:
            outside = total - self.mapped
            return [("edge tpu", f"compiled, with {outside} operators on the CPU")]
        lines = [("edge tpu", f"estimate: {totals(self.mapped, total, self.likely)}")]
        if self.on_chip_bytes_high:
            text = memory(self.on_chip_bytes_low, self.on_chip_bytes_high)
            lines.append(("on chip", f"estimate: {text}"))
        likely = grouped(v for v in self.verdicts if v.kind == "likely")
        lines += [("likely", line) for line in likely]
        return lines + [("stays on cpu", line) for line in self.problems]


def totals(mapped, total, likely=0):
    """Returns how many operators map, as text."""
    text = f"{mapped} of {total} operators map"
    return f"{text}, {likely} of them likely" if likely else text


def memory(low, high):
    """Returns whether parameters fit on the chip, as text; both sizes are in bytes."""
    if high <= ON_CHIP_BYTES:
        fits = "fits"
    elif low <= ON_CHIP_BYTES:
        fits = "may fit"
    else:
        fits = "does not fit, parameters are streamed"
    return f"{low / 2**20:.2f} to {high / 2**20:.2f} of 8 MiB: {fits}"


def grouped(verdicts):
    """Returns a line for each operator and kind; what follows from others is last."""
    groups = collections.defaultdict(list)
    for verdict in sorted(verdicts, key=lambda verdict: verdict.kind == "partition"):
        name = "others" if verdict.kind == "partition" else verdict.operator
        reasons = filter(None, (verdict.reason, verdict.remedy))
        groups[name, verdict.kind].append("; ".join(reasons))
    return [f"{len(all_)} x {name}: {all_[0]}" for (name, _), all_ in groups.items()]


def check(content):
    """Judges the bytes of a .tflite; returns a `Report`.

    Raises:
        ValueError: the file is damaged or no .tflite; the text is one line.
    """
    graph = tflite_graph.read(content)
    verdicts = _in_one_partition(graph, _verdicts(graph))
    if graph.subgraphs > 1:
        reason = f"the file has {graph.subgraphs} graphs, and the compiler takes one"
        verdicts = [
            dataclasses.replace(
                verdict, kind="limit", reason=reason, remedy=edgetpu_remedies.UNROLL
            )
            for verdict in verdicts
        ]
    constants = {
        tensor.index: tensor.size
        for operator, verdict in zip(graph.operators, verdicts, strict=True)
        for tensor in operator.inputs
        if verdict.maps and tensor is not None and tensor.constant
    }
    parameter_bytes = sum(constants.values())
    low, high = (round(factor * parameter_bytes) for factor in PARAMETER_OVERHEAD)
    return Report(
        verdicts=tuple(verdicts),
        compiled=any(op.custom == COMPILED for op in graph.operators),
        parameter_bytes=parameter_bytes,
        on_chip_bytes_low=low,
        on_chip_bytes_high=high,
    )


def _verdicts(graph):
    """Returns a `Verdict` on each operator, whatever surrounds it."""
    verdicts = []
    for operator in graph.operators:
        if operator.custom == COMPILED:
            verdicts.append(Verdict(operator.index, COMPILED))
            continue
        kind, reason = edgetpu_rules.judge(operator)
        stays = kind not in (None, "likely")
        remedy = edgetpu_remedies.find(operator, graph) if stays else None
        name = operator.custom or operator.name
        verdicts.append(Verdict(operator.index, name, kind, reason, remedy))
    return verdicts


def _in_one_partition(graph, verdicts):
    """Keeps on the CPU what comes after an operator that stays there.

    The compiler puts one part of the graph on the Edge TPU: all operators that map and
    depend on nothing that the CPU computes. There is one exception: where the first
    operator stays on the CPU, such as the QUANTIZE of a float image, what the CPU can
    compute from the input alone comes before that part.
    """
    ready = {tensor.index for tensor in graph.inputs}
    ready |= {
        tensor.index for tensor in graph.tensors if tensor.constant or tensor.variable
    }
    part = set()
    starts_on_cpu = not all(verdict.maps for verdict in verdicts[:1])
    for on_tpu in (False, True) if starts_on_cpu else (True,):
        for op in graph.operators:  # in the order of execution
            if verdicts[op.index].maps == on_tpu and all(
                tensor is None or tensor.index in ready for tensor in op.inputs
            ):
                ready |= {tensor.index for tensor in op.outputs}
                part |= {op.index} if on_tpu else set()
    reason = "an operator before them stays on the CPU"
    return [
        verdict
        if verdict.index in part or not verdict.maps
        else dataclasses.replace(verdict, kind="partition", reason=reason)
        for verdict in verdicts
    ]
