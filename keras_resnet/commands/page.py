r"""Writes a web page of a .tflite that answers for pictures by itself, offline.

Examples:
  keras-resnet page resnet20.tflite
  keras-resnet page coral.tflite --labels=labels.txt --samples=cat.jpg,dog.jpg \
      --output=page.html

The page is one HTML file: it holds the model, its labels and preprocessing, and LiteRT
for browsers. It opens from disk, fetches nothing, and answers for pictures that are
dropped, chosen or pasted, for the camera and for samples.
"""

from absl import flags

from keras_resnet import edge
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS
POSITIONAL = "model"


def define_flags():
    """Defines the flags of the command."""
    texts = {
        "model": "The .tflite; as the first argument, it needs no --model=.",
        "output": "Path of the page; default: that of the model, ending in .html.",
        "labels": "A text file with the names of the classes, one a line; default: "
        "those inside the model.",
    }
    app.define(flags.DEFINE_string, texts)
    text = "Pictures to choose from in the page, separated by commas."
    flags.DEFINE_list("samples", [], text)


def main():
    """Writes the page and prints its path and size."""
    if not FLAGS.model:
        raise UserError("no model is given. Try: keras-resnet page MODEL.tflite")
    path = edge.write_page(
        FLAGS.model, FLAGS.output, labels=FLAGS.labels, samples=FLAGS.samples
    )
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
