r"""Measures top-1 and top-5 of a model on a whole held-out split.

Examples:
  python training/evaluate.py --model=runs/resnet20-cifar10/model.keras
      Takes the data and the preprocessing of its run.
  python training/evaluate.py --model=resnet20.tflite --dataset=cifar10
      Evaluates the file that the device gets, on the device's runtime.
  python training/evaluate.py --model=my.keras --normalization=torch \
      --crop_fraction=0.875 --dataset=folder --data_dir=photos --views=ten_crop

  python training/evaluate.py --model=runs/one --model=runs/other --model=third.tflite
      Averages the scores of several networks (an ensemble; the paper, table 5).

Writes MODEL.evaluation.json, or of several models FIRST.ensemble.evaluation.json.
"""

from absl import flags

from keras_resnet import console
from keras_resnet.commands import app

FLAGS = flags.FLAGS
REQUIRED = ("model",)


def define_flags():
    """Defines the flags of the command."""
    text = (
        "A .keras or .tflite file, or the folder of a run. Given several times, the "
        "scores of the networks are averaged."
    )
    flags.DEFINE_multi_string("model", None, text)
    flags.DEFINE_string("dataset", None, "Default: the dataset of the model's run.")
    flags.DEFINE_string("data_dir", None, "Folder of the dataset.")
    flags.DEFINE_string(
        "views",
        "single",
        "What is classified of each image: single (the centre crop), ten_crop, or "
        "multi_scale (five sizes; the paper, section 4.1).",
    )
    flags.DEFINE_string(
        "normalization",
        None,
        "How pixels are normalized for a .keras file that does not say it: zoo, torch, "
        "tf, caffe or raw.",
    )
    text = f"{app.CROP_FRACTION}; default: the model's."
    flags.DEFINE_float("crop_fraction", None, text)


def main():
    """Evaluates as the flags say."""
    console.import_tensorflow()
    from keras_resnet import training

    first, *others = FLAGS.model
    ensemble = ".ensemble" if others else ""
    output = f"{first.rstrip('/')}{ensemble}.evaluation.json"
    metrics = training.evaluate(
        **app.arguments(training.evaluate, "output"), output=output
    )
    of_several = f" of {1 + len(others)} models together" if others else ""
    print(
        f"{app.accuracy_text(metrics)}{of_several} on "
        f"{metrics['examples_evaluated']} images of {metrics['dataset']}; in {output}"
    )
