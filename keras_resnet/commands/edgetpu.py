r"""Estimates which operators of a .tflite run on a Coral Edge TPU.

Examples:
  python edge/edgetpu.py model.tflite
  python edge/edgetpu.py model.tflite --json
  python edge/edgetpu.py model.tflite --compile
      Also runs Google's compiler and writes model_edgetpu.tflite.

The estimate follows the rules that Coral publishes (coral.ai/docs/edgetpu/models-intro)
and what Google's compiler did with Coral's own models. An operator counts as "likely"
where both make it probable and neither proves it. Where they leave a case open, the
operator stays on the CPU. The memory on the chip is a range: the compiler pads
parameters by a factor that only it knows.

With --compile, Google's edgetpu_compiler must be installed. The output then says
whether it confirmed or corrected the estimate, and --json adds its log.

If no operator maps, the exit code is 2, after the same output.
"""

import dataclasses
import json
import pathlib

from absl import flags

from keras_resnet.edge.targets import edgetpu, edgetpu_compiler
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS
POSITIONAL = "model"


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string(
        "model", None, "The .tflite; as the first argument, it needs no --model=."
    )
    flags.DEFINE_bool("compile", False, "Compile the file with edgetpu_compiler too.")
    flags.DEFINE_bool("json", False, "Print JSON with a verdict on every operator.")


def main():
    """Judges a file, and compiles it where --compile is given."""
    if not FLAGS.model:
        raise UserError("no model is given. Try: python edge/edgetpu.py MODEL.tflite")
    content = pathlib.Path(FLAGS.model).read_bytes()
    try:
        report = edgetpu.check(content)
    except ValueError as error:
        raise UserError(f"{FLAGS.model}: {error}") from error
    if FLAGS.compile and report.compiled:
        raise UserError(f"{FLAGS.model} is compiled already; leave --compile out")
    result, lines = {"model": FLAGS.model, **report.as_dict()}, report.lines()
    mapped = report.mapped
    if FLAGS.compile:
        output, compilation = edgetpu_compiler.compile_model(FLAGS.model)
        confirmed = compilation.confirms(report)
        result["estimate"] = not confirmed
        result["compilation"] = {
            "output": str(output),
            "confirms_estimate": confirmed,
            "mapped": compilation.mapped,
            **dataclasses.asdict(compilation),
        }
        mapped = compilation.mapped
        lines = [] if confirmed else lines
        lines += [*compilation.lines(report), ("written", output)]
    if FLAGS.json:
        print(json.dumps(result))
    else:
        print(FLAGS.model, *(f"  {n:<14} {value}" for n, value in lines), sep="\n")
    if not mapped:
        advice = report.remedies or report.problems[:1] or ["it has no operators"]
        raise UserError(
            f"no operator of {FLAGS.model} maps to the Edge TPU: {'; '.join(advice)}"
        )
