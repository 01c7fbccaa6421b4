r"""Makes a run of a trained Keras 3 model of your own, for qat.py and edge/export.py.

Example:
  python training/adopt.py --model=my.keras --normalization=torch \
      --dataset=folder --data_dir=photos --model_dir=runs/my
  python training/qat.py --model_dir=runs/my
  python edge/export.py --model_dir=runs/my --target=edgetpu

The model is evaluated on the held-out images first. If the accuracy is lower than the
one you know, the normalization, the resizing or the order of the classes is wrong. The
classes are in the order of the dataset; those of a folder are sorted by name.
"""

from absl import flags

from keras_resnet import console
from keras_resnet.commands import app

REQUIRED = {
    "model": "A .keras file, which is copied.",
    "model_dir": "Folder of the run to make.",
    "normalization": "How its pixels were normalized in training: zoo, torch, tf, "
    "caffe (as in keras.applications) or raw (0..255).",
    "dataset": "What it was trained on; as for train.py.",
}


def define_flags():
    """Defines the flags of the command."""
    app.define(flags.DEFINE_string, REQUIRED, required=True)
    flags.DEFINE_float("crop_fraction", 1.0, f"{app.CROP_FRACTION}.")
    flags.DEFINE_string("data_dir", None, "Folder of the dataset.")
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in one step of qat.py; default: what the dataset's recipe has.",
    )


def main():
    """Adopts as the flags say."""
    console.import_tensorflow()
    from keras_resnet import training

    run = training.adopt(**app.arguments(training.adopt))
    print(
        f"held-out top-1 {run.metrics['top1']:.2%} on "
        f"{run.metrics['examples_evaluated']} images; files in {run.directory}"
    )
