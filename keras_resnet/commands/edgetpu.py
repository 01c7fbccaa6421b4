r"""Says of any .tflite, operator by operator, what runs on a Coral Edge TPU.

Examples:
  python edge/edgetpu.py model.tflite
  python edge/edgetpu.py model.tflite --json
  python edge/edgetpu.py model.tflite --compile
      Also runs edgetpu_compiler, where it is installed: model_edgetpu.tflite.

The rules are those that Coral publishes (coral.ai/docs/edgetpu/models-intro): fixed
sizes, 8-bit tensors, constant parameters, and limits for each operator. Where the
documentation leaves it open the answer here is no, and says so.
"""

import dataclasses
import json
import pathlib

from absl import flags

from keras_resnet.edge.targets import edgetpu
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS
POSITIONAL = "model"


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("model", None, "The .tflite; if first, also without --model=.")
    flags.DEFINE_bool("compile", False, "Also run edgetpu_compiler.")
    flags.DEFINE_bool("json", False, "Print JSON, with every operator.")


def main():
    """Judges a file, and compiles it, as the flags say."""
    if not FLAGS.model:
        raise UserError("give a model: python edge/edgetpu.py MODEL.tflite")
    content = pathlib.Path(FLAGS.model).read_bytes()
    try:
        report = edgetpu.check(content)
    except ValueError as error:
        raise UserError(f"{FLAGS.model}: {error}") from error
    if FLAGS.compile and report.compiled:
        raise UserError(f"{FLAGS.model} is compiled already")
    result, lines = {"model": FLAGS.model, **report.as_dict()}, report.lines()
    if FLAGS.compile:
        output, compilation = edgetpu.compile_model(FLAGS.model)
        result["compilation"] = {
            "output": str(output),
            "mapped": compilation.mapped,
            **dataclasses.asdict(compilation),
        }
        lines += [*compilation.lines(), ("written", output)]
    if FLAGS.json:
        print(json.dumps(result))
    else:
        print(FLAGS.model, *(f"  {n:<14} {value}" for n, value in lines), sep="\n")
