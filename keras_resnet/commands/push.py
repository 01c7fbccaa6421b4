"""Puts a run on the Hugging Face hub, with a model card made from its report.

Examples:
  keras-resnet push --model=runs/resnet20-digits --repo=user/digits --license=mit
  keras-resnet push --model=runs/photos --repo=user/photos --tflite=photos.tflite
      Exports that lie in the folder of the run are pushed without --tflite.

It needs a token of the hub that may write: run `hf auth login`, or set HF_TOKEN. The
repository is created, as a public one, where there is none of that name. Everything is
pushed in one commit, or nothing.
"""

from absl import flags

import keras_resnet
from keras_resnet import console
from keras_resnet.commands import app

REQUIRED = ("model", "repo")


def define_flags():
    """Defines the flags of the command."""
    text = "Folder of a run of train.py or adopt.py."
    flags.DEFINE_string("model", None, text)
    text = "USER/NAME, the repository on the hub."
    flags.DEFINE_string("repo", None, text)
    text = (
        "Licence of the model, as the hub names licences (apache-2.0, mit, ...); "
        "default: the card names none."
    )
    flags.DEFINE_string("license", None, text)
    text = "A .tflite that was exported from the run to another place; repeatable."
    flags.DEFINE_multi_string("tflite", [], text)


def main():
    """Pushes as the flags say."""
    console.import_tensorflow()
    values = app.arguments(keras_resnet.push, "run")
    address = keras_resnet.push(flags.FLAGS.model, **values)
    print(f'pushed; keras_resnet.load("{address}") opens it')
