r"""Flash, memory and work of the networks on microcontrollers, in TFLM's interpreter.

    python -m benchmarks.micro --data_dir=DIR

Prints two tables in Markdown. The first is of sizes: int8 networks with random weights,
which change no size. The second holds TFLM's interpreter to LiteRT on images of the
test split of CIFAR-10, with the files in models/; without --data_dir it is left out.
"""

import pathlib
import sys

import numpy as np
from absl import flags

import keras_resnet
from keras_resnet import console
from keras_resnet.commands import app
from keras_resnet.edge.convert import converter
from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.inspect import operators
from keras_resnet.edge.targets import micro_program, tflite_micro
from keras_resnet.preprocessing import Preprocessing

ROOT = pathlib.Path(__file__).resolve().parents[1]

FLAGS = flags.FLAGS

# (name, width): networks whose model is at most some hundred KB.
NETWORKS = (
    *(("resnet8", width) for width in (0.25, 0.5, 0.75, 1)),
    *(("resnet14", width) for width in (0.25, 0.5, 1)),
    *(("resnet20", width) for width in (0.25, 0.5, 1)),
    *(("resnet32", width) for width in (0.25, 0.5)),
    ("resnet56", 0.25),
)
SIZES = (
    "Network",
    "Width",
    "Flash (bytes)",
    "Arena (bytes)",
    "CMSIS-NN",
    "M mult-adds",
)
SCORES = (
    "File",
    "Images",
    "Kernels of LiteRT",
    "Equal images",
    "Most steps",
    "Top-1 eq.",
)


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("data_dir", None, "Where CIFAR-10 lies; see above.")
    flags.DEFINE_integer("images", 1000, "Images of the second table.", lower_bound=1)


def main():
    """Prints the tables."""
    console.import_tensorflow()
    print_rows([SIZES, *map(sizes, NETWORKS)])
    if FLAGS.data_dir:
        paths = sorted((ROOT / "models").glob("*.tflite"))
        images, labels = test_images(FLAGS.data_dir, FLAGS.images)
        rows = [row for path in paths for row in agreement(path, images, labels)]
        print_rows([SCORES, *rows])


def sizes(network):
    """Returns the row of a (name, width)."""
    name, width = network
    model = keras_resnet.create_model(name, weights=None, width=width)
    preprocessing = Preprocessing(model.input_shape[1:3])
    shape = (1, *preprocessing.input_size, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    content = converter.from_keras(model, preprocessing, "int8", pixels)
    graph = tflite_graph.read(content)
    work = sum(map(operators.multiply_adds, graph.operators))
    return (
        name,
        f"{width:g}",
        f"{len(content):,}",
        f"{tflite_micro.run(content, pixels)[1]:,}",
        f"+ {micro_program.scratch_bytes(graph):,}",
        f"{work / 1e6:.1f}",
    )


def test_images(data_dir, count):
    """Returns the first images of the test split and their labels, arrays."""
    from keras_resnet.training.data import batching, sources  # needs TensorFlow

    split = sources.load("cifar10", data_dir).held_out
    pairs = batching.images(split, Preprocessing((32, 32))).take(count)
    return tuple(
        np.stack(part) for part in zip(*pairs.as_numpy_iterator(), strict=True)
    )


def agreement(path, images, labels):
    """Returns the two rows of a file, and prints the accuracies that go with them."""
    content = path.read_bytes()
    ours, _ = tflite_micro.run(content, images)
    rows, accuracies = [], {"TFLM": ours}
    for kernels, is_reference in (("reference", True), ("XNNPACK", False)):
        theirs = tflite_micro.litert_scores(content, images, is_reference)
        found = tflite_micro.compare(ours, theirs)
        accuracies[kernels] = theirs
        rows.append(
            (
                path.name,
                f"{len(images):,}",
                kernels,
                f"{found['equal_images']:,}",
                str(found["max_steps"]),
                f"{found['top1_agreement']:.2%}",
            )
        )
    texts = (
        f"{name} {np.mean(scores.argmax(-1) == labels):.2%}"
        for name, scores in accuracies.items()
    )
    print(f"{path.name}: top-1 {', '.join(texts)}\n", flush=True)
    return rows


def print_rows(rows):
    """Prints a table in Markdown; the first row is its head."""
    head, *body = rows
    for row in (head, ["---"] * len(head), *body):
        print(f"| {' | '.join(row)} |")
    print(flush=True)


if __name__ == "__main__":
    app.run(sys.modules[__name__])
