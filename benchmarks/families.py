r"""Quantizes the families of keras.applications: a table for docs/families.md.

    python -m benchmarks.families --results=runs/families

Trains one network of each family on scikit-learn's digits, from scratch, in a size that
is small for it. Then it takes the way of any Keras model: adopt, quantization-aware
training (QAT), conversion without it (PTQ) and conversion of the QAT result. The
accuracies in 8 bits are those of the .tflite files, run by LiteRT, on the 360 held-out
images. Operators: what the estimate for the Edge TPU and what Arm's Vela map.

Each family adds a line to results.jsonl in --results when it is done, and is skipped
when the command runs again. On 2 CPU cores a family takes 5 to 40 minutes. Prints
Markdown.
"""

import contextlib
import dataclasses
import json
import pathlib
import sys
import time

from absl import flags

from keras_resnet import console
from keras_resnet.commands import app
from keras_resnet.errors import unknown

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Family:
    """How a network is trained here.

    Attributes:
        size: side of its input, in pixels.
        normalization: what it was made for; "raw" where its own layers normalize.
        epochs: passes over the 1,437 training images.
    """

    size: int
    normalization: str
    epochs: int = 20


FAMILIES = {
    "MobileNetV2": Family(64, "tf"),
    "MobileNetV3Small": Family(64, "raw", 30),
    "ResNet50V2": Family(32, "tf"),
    "EfficientNetV2B0": Family(64, "raw"),
    "DenseNet121": Family(32, "torch"),
    "InceptionResNetV2": Family(75, "tf", 10),
}
# Of the fine-tuning. Networks that Adam trained for some hundred steps lose all they
# know to the 0.001 that fine-tuning has by default.
LEARNING_RATE = 1e-4
ETHOS_U = "ethos-u55-128"
HEADER = (
    "Family",
    "Input",
    "Float top-1",
    "PTQ top-1",
    "QAT top-1",
    "Edge TPU, PTQ",
    "Edge TPU, QAT",
    "Ethos-U55, PTQ",
    "Ethos-U55, QAT",
)


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_list("families", list(FAMILIES), "Names of keras.applications.")
    flags.DEFINE_string("results", "runs/families", "Folder of runs and results.")


def main():
    """Measures as the flags say."""
    for name in FLAGS.families:
        if name not in FAMILIES:
            raise unknown("families", name, FAMILIES)
    console.import_tensorflow()
    folder = pathlib.Path(FLAGS.results)
    folder.mkdir(parents=True, exist_ok=True)
    lines = folder / "results.jsonl"
    done = {}
    if lines.is_file():
        results = map(json.loads, lines.read_text("utf-8").splitlines())
        done = {result["family"]: result for result in results}
    for name in FLAGS.families:
        if name not in done:
            with contextlib.redirect_stdout(sys.stderr):  # adopting prints notes
                done[name] = measure(name, FAMILIES[name], folder / name)
            with lines.open("a", encoding="utf-8") as file:
                print(json.dumps(done[name]), file=file)
            print(json.dumps(done[name]), file=sys.stderr, flush=True)
    print(table([done[name] for name in FLAGS.families]))


def measure(name, family, folder):
    """Trains and quantizes the network of a family.

    Args:
        name: of a function of keras.applications.
        family: the `Family`.
        folder: where its run goes.

    Returns:
        dict that JSON can hold: accuracies (0..1) and numbers of operators.
    """
    from keras_resnet import training
    from keras_resnet.edge.convert import converter, metadata
    from keras_resnet.edge.report import comparison
    from keras_resnet.rewrite import fold_normalization
    from keras_resnet.training.data import batching, sources

    started = time.monotonic()
    folder.mkdir(exist_ok=True)
    path = folder / "trained.keras"
    if not path.is_file():
        train(name, family, path)
    trained = time.monotonic()
    run = training.adopt(
        path,
        "digits",
        folder / "run",
        normalization=family.normalization,
        resize="crop",
        interpolation="bilinear",
        antialias=True,
    )
    qat = training.quantize_aware(
        run, epochs=2, learning_rate=LEARNING_RATE, freeze=("batch_norm",)
    )
    tuned = time.monotonic()
    data = sources.load("digits")
    compared = comparison.Comparison(
        run.load_model(), run.preprocessing, data, data.held_out.examples
    )
    model, preprocessing, _ = fold_normalization(run.load_model(), run.preprocessing)
    calibration = batching.calibration_images(data, run.preprocessing, 500)
    saved = qat.directory / "saved_model"
    contents = {
        "ptq": converter.from_keras(model, preprocessing, "int8", calibration),
        "qat": converter.from_saved_model(saved, preprocessing),
    }
    result = {
        "family": name,
        "input": family.size,
        "images": data.held_out.examples,
        "float": run.metrics["top1"],
        "fake_quantized": qat.metrics["top1"],
    }
    for kind, content in contents.items():
        content = metadata.with_metadata(
            content, data.labels, preprocessing, metadata.About(name)
        )
        (folder / f"{kind}.tflite").write_bytes(content)
        top1 = compared.scores(content)["top1"]
        result[kind] = {"top1": top1, "bytes": len(content), **operators(content)}
    ended = time.monotonic()
    result["seconds"] = {
        "training": round(trained - started),
        "qat": round(tuned - trained),
        "files": round(ended - tuned),
    }
    return result


def train(name, family, path):
    """Trains the network of a family from scratch, and writes it as a .keras file."""
    import keras

    from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
    from keras_resnet.training import recipes
    from keras_resnet.training.data import batching, sources

    keras.utils.set_random_seed(0)
    shape = (family.size, family.size, 3)
    network = getattr(keras.applications, name)(
        weights=None, input_shape=shape, classes=10
    )
    for layer in network.layers:
        # Theirs average over thousands of steps, and these are some hundred.
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9
    preprocessing = Preprocessing(shape[:2], **NORMALIZATIONS[family.normalization])
    # As fine-tuning has them: the digits are shifted.
    recipe = dataclasses.replace(
        recipes.RECIPES["digits"],
        image_size=family.size,
        batch_size=32,
        epochs=family.epochs,
    )
    data = sources.load("digits")
    batches = batching.train_batches(data, preprocessing, recipe, seed=0)
    steps = batching.steps_per_epoch(data, recipe.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(1e-3, steps * family.epochs)
    network.compile(keras.optimizers.Adam(rate), "categorical_crossentropy")
    network.fit(batches, steps_per_epoch=steps, epochs=family.epochs, verbose=0)
    network.save(path)


def operators(content):
    """Returns how many operators of a file there are, and run on which accelerator."""
    from keras_resnet.edge.targets import checks, ethos_u

    found = checks.check(content)
    summary, _ = ethos_u.compile_model(content, ETHOS_U)
    return {
        "operators": sum(row.count for row in found.operators),
        "float_tensors": len(found.float_tensors),
        "edgetpu": found.edgetpu_operators,
        "ethos_u": summary.npu_operators,
        "ethos_u_cpu": summary.cpu_operators,
    }


def table(results):
    """Returns the results as a table in Markdown."""
    rows = [HEADER, ["---"] + ["---:"] * (len(HEADER) - 1)]
    for result in results:
        files = result["ptq"], result["qat"]
        rows.append(
            [
                result["family"],
                f"{result['input']} px",
                f"{result['float']:.2%}",
                *(f"{file['top1']:.2%}" for file in files),
                *(f"{file['edgetpu']} of {file['operators']}" for file in files),
                *(
                    f"{file['ethos_u']} of {file['ethos_u'] + file['ethos_u_cpu']}"
                    for file in files
                ),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    app.run(sys.modules[__name__])
