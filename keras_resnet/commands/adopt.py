r"""Makes a run of a trained Keras model of your own, for qat.py and edge/export.py.

Example:
  python training/adopt.py --model=my.keras --dataset=folder --data_dir=photos \
      --model_dir=runs/my
  python training/qat.py --model_dir=runs/my
  python edge/export.py --model_dir=runs/my --target=edgetpu

The model must get its images as in its training. What no flag says of that is found
out: the usual ways to preprocess are tried on training images, the best one is taken,
and a table shows them with their flags. Then the model is evaluated on the held-out
images. The classes are in the order of the dataset, those of a folder sorted by name.
If they fit better in another order, if other flags fit better than those you gave, or
if the model is no better than chance, no run is made.
"""

from absl import flags

from keras_resnet import console
from keras_resnet.commands import app

REQUIRED = {
    "model": "A .keras or .h5 file, of Keras 3 or 2.",
    "model_dir": "Folder of the run to make.",
    "dataset": "What it was trained on; as for train.py.",
}
TEXTS = {
    "data_dir": "Folder of the dataset.",
    "labels": "A text file with the names of the classes in the order of the model's "
    "scores, one a line; default: the order of the dataset.",
}


def define_flags():
    """Defines the flags of the command."""
    app.define(flags.DEFINE_string, REQUIRED | TEXTS)
    app.define_preprocessing_flags()
    app.define_code_flags()
    text = "Accuracy that you know, in percent: a lower one is refused."
    flags.DEFINE_float("expect_top1", None, text)
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Images in one step of qat.py; default: what the dataset's recipe has, or less "
        "if there are fewer images.",
    )


def main():
    """Adopts as the flags say."""
    console.import_tensorflow()
    from keras_resnet import training
    from keras_resnet.training import reporting

    run = training.adopt(**app.arguments(training.adopt))
    print(
        f"held-out {app.accuracy_text(run.metrics)} on "
        f"{run.metrics['examples_evaluated']} images; files in {run.directory}"
    )
    reporting.print_summary(run)
