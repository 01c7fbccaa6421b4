r"""Converts a trained model to a .tflite for the device, and reports on it.

Examples:
  python edge/export.py --model_dir=runs/resnet20-digits
      Exports the result of train.py, or that of qat.py if it was run.
  python edge/export.py --model_dir=runs/resnet20-digits --quantize=float16
  python edge/export.py --model=resnet50 --weights=imagenet --dataset=folder \
      --data_dir=photos --target=edgetpu --output=resnet50.tflite
  python edge/export.py --model=my.keras --normalization=torch \
      --dataset=folder --data_dir=photos --output=my.tflite
  python edge/export.py --model=resnet20_224 --weights=imagenet --features \
      --dataset=folder --data_dir=photos --output=features.tflite
      Exports what run_tflite.py --learn learns classes from, on the device.
  python edge/export.py --model_dir=runs/resnet8-cifar10 --target=tflite_micro
      Writes a sketch for a microcontroller beside the .tflite, the model inside.

The file takes raw uint8 RGB pixels and returns uint8 scores, or features. The labels
and how to resize are inside. Run it with edge/run_tflite.py.
The report is printed. OUTPUT.report.json has it too, and OUTPUT.report.html shows the
error of each layer. If a check fails, nothing is written.
"""

import pathlib

from absl import flags

from keras_resnet import edge
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS
TEXTS = {
    "model_dir": "Folder of a run of train.py or adopt.py.",
    "model": "Model of the zoo, or path of a .keras or .h5 file or of a SavedModel "
    "folder.",
    "output": "Path of the .tflite; default: MODEL_DIR/model-<quantize>.tflite.",
    "dataset": "Dataset to calibrate and report with; default: that of the run.",
    "data_dir": "Where the dataset lies; default: where the training found it.",
    "author": "Person or organization, for the metadata.",
    "license": "Name of the licence, for the metadata; default: that of published "
    "weights.",
    "weights": "With a model of the zoo: a name (imagenet, a1_in1k) or a file.",
    "labels": "With --model: a text file with the names of the classes, one a line; "
    "default: those that the model knows, else those of the dataset if their number "
    "fits.",
}


def define_flags():
    """Defines the flags of the command."""
    app.define(flags.DEFINE_string, TEXTS)
    text = "Default: qat if qat.py was run, else int8 (post-training)."
    flags.DEFINE_enum("quantize", None, edge.QUANTIZATIONS, text)
    flags.DEFINE_string(
        "target",
        "litert",
        "What must be able to run the file: litert, tflite_runtime (2.14), edgetpu, "
        "tflite_micro (microcontrollers), or a configuration of Arm's Vela such as "
        "ethos-u55-128.",
    )
    app.define_preprocessing_flags("With --model: ")
    app.define_code_flags("With --model: ")
    text = "Training images to calibrate int8 and int16x8 with."
    flags.DEFINE_integer("calibration_examples", 500, text)
    text = "Held-out images to report on, at most."
    flags.DEFINE_integer("report_examples", 1000, text)
    text = "Percentage points of top-1 that the file may lose."
    flags.DEFINE_float("max_drop", 1.0, text)
    text = "With --target=tflite_micro: bytes of the arena that the device can hold."
    flags.DEFINE_integer("arena_bytes", None, text)
    text = "Gives the pooled features instead of scores, to learn from on the device."
    flags.DEFINE_bool("features", False, text)
    text = "Also writes OUTPUT.html, a web page that runs the model by itself."
    flags.DEFINE_bool("page", False, text)


def main():
    """Exports as the flags say, and prints the report."""
    run, model = FLAGS.model_dir, FLAGS.model
    if bool(run) == bool(model):
        raise UserError(
            "give either --model_dir (a run of train.py) or --model (a name, a "
            f"file or a folder). Received: --model_dir={run} --model={model}"
        )
    # A path, so that a folder is not taken for the model of the zoo of that name.
    settings = app.arguments(edge.export, "model")
    print(edge.export(pathlib.Path(run) if run else model, **settings))
