r"""Puts a trained CIFAR network into the package: weights, card, registry, docs.

    python -m benchmarks.ship --model_dir=runs/resnet8-cifar10 \
        --hardware="two cores of an AMD EPYC (Zen 5)"

The folder is an ended run of training/train.py, with an int8 export of
edge/export.py inside (after training/qat.py or without). Writes

    keras_resnet/weights/pretrained/MODEL.cifar10.weights.h5   kernels in float16
    keras_resnet/weights/pretrained/MODEL.cifar10.json         its card: how it was made
    models/MODEL.cifar10.int8.tflite           for the device; not in the wheel

and the row of the file in keras_resnet/weights/weights.tsv and in docs/weights.md. The
accuracies are measured here, on the test split, with the files that are written.
"""

import csv
import math
import pathlib
import sys
import tempfile

import h5py
import numpy as np
from absl import flags

import keras_resnet
from keras_resnet import console, files
from keras_resnet.commands import app
from keras_resnet.commands.models import table
from keras_resnet.edge.convert import metadata
from keras_resnet.runner import Classifier, model_file
from keras_resnet.runner.errors import UserError
from keras_resnet.weights import registry

ROOT = pathlib.Path(__file__).resolve().parents[1]

FLAGS = flags.FLAGS

TAG = "cifar10"
LICENCE = "apache-2.0"
REQUIRED = ("model_dir", "hardware")
# Tests measure again on so many test images, the first ones.
FIRST = 1000


def define_flags():
    """Defines the flags of the command."""
    texts = {
        "model_dir": "The run to ship.",
        "hardware": "What it was trained on.",
        "tflite": "Its int8 export; default: model-qat.tflite, else model-int8.",
        "data_dir": "Where CIFAR-10 lies; default: where the training found it.",
    }
    app.define(flags.DEFINE_string, texts)


def main():
    """Ships as the flags say."""
    console.import_tensorflow()
    card = ship(
        pathlib.Path(FLAGS.model_dir),
        FLAGS.tflite and pathlib.Path(FLAGS.tflite),
        FLAGS.data_dir,
        FLAGS.hardware,
    )
    for kind in ("float", "int8"):
        found = card[kind]["accuracy"]
        print(
            f"{card[kind]['file']}: {card[kind]['bytes']:,} bytes, top-1 "
            f"{found['top1']:.2%} +- {found['standard_error']:.2%} on "
            f"{found['images']} test images"
        )


def ship(run, tflite, data_dir, hardware):
    """Writes the files of a network beside those of the others; returns its card.

    The arguments are the values of the flags. If the run has not ended, is of another
    kind of network, or the export is of other weights, `UserError` is raised and
    nothing is written.
    """
    from keras_resnet.training.data import sources
    from keras_resnet.training.runs import folder as run_folder
    from keras_resnet.training.runs.run import Run

    finished = Run.open(run)
    config = run_folder.read_config(run)
    model, preprocessing = _model_of(finished, config), finished.preprocessing
    name = f"{model.name}.{TAG}"
    tflite = tflite or _export_in(run)
    content, made_from, report = _export_of(run, tflite, config)
    settings = config["settings"]
    # The test split, whatever the run held out; and what it trained on.
    dataset = sources.load(settings["dataset"], data_dir or settings["data_dir"])
    images, labels = arrays(dataset.held_out, preprocessing)
    trained_on = dataset.train.examples - (settings.get("hold_out") or 0)
    batch_size = config["recipe"]["batch_size"]
    examples = trained_on // batch_size * batch_size  # in an epoch

    package = registry.PACKAGE
    root = package.parents[1]
    weights = package / registry.SHIPPED / f"{name}.weights.h5"
    device = root / "models" / f"{name}.int8.tflite"
    with tempfile.TemporaryDirectory() as folder:
        exported = pathlib.Path(folder) / device.name
        about = metadata.About(model.name, license=LICENCE, run_sha256=made_from)
        exported.write_bytes(
            metadata.with_metadata(content, config["labels"], preprocessing, about)
        )
        stored = pathlib.Path(folder) / weights.name
        write_weights(model, stored)
        card = {
            "name": name,
            "licence": LICENCE,
            "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
            "float": {
                **_described(stored, weights.relative_to(root)),
                "accuracy": accuracy(
                    _float_scores(model, stored, preprocessing, images), labels
                ),
            },
            "int8": {
                **_described(exported, device.relative_to(root)),
                "accuracy": accuracy(int8_scores(exported, images), labels),
            },
            "training": _training(finished, config, report, examples, hardware),
        }
        for path, new in ((weights, stored), (device, exported)):
            with files.replacing(path) as temporary:
                pathlib.Path(temporary).write_bytes(new.read_bytes())
    files.write_json(weights.parent / f"{name}.json", card)
    source = weights.relative_to(package).as_posix()
    _register(package / "weights.tsv", model.name, source, card)
    registry.weight_files.cache_clear()
    _show_in_docs(root / "docs" / "weights.md", table())
    return card


# --- What the run left --------------------------------------------------------


def _model_of(run, config):
    """Returns the network of a `Run`, as the zoo builds it."""
    import keras

    from keras_resnet import models
    from keras_resnet.preprocessing import Preprocessing, classes

    name, recipe = config["settings"]["model"], config["recipe"]
    family = models.VARIANTS.get(name, (None,))[0]
    wanted = {
        "a ResNet for CIFAR": family == models.CIFAR and name.startswith("resnet"),
        "trained on CIFAR-10": run.labels == tuple(n for _, n in classes(TAG)),
        "of width 1": config["settings"].get("width") is None,
        "with shortcut B": recipe["shortcut"] == models.REGISTERED["shortcut"],
        "of 32x32 images, (pixel - 128) / 64": (
            run.preprocessing == Preprocessing((32, 32))
        ),
    }
    missing = [what for what, there in wanted.items() if not there]
    if missing:
        raise UserError(
            f"{run.directory} cannot be shipped: it must be {', '.join(missing)}"
        )
    keras.config.set_dtype_policy("float32")
    model = keras_resnet.create_model(name, weights=None)
    model.set_weights(run.load_model().get_weights())
    return model


def _export_in(run):
    for path in (run / "model-qat.tflite", run / "model-int8.tflite"):
        if path.exists():
            return path
    raise UserError(f"{run} has no int8 export: run edge/export.py --model_dir={run}")


def _export_of(run, tflite, config):
    """Returns the bytes of an export, the hash of its source, and its report."""
    content = tflite.read_bytes()
    try:
        labels = model_file.read_model(tflite).labels or b""
        labels = model_file.parse_labels(labels, numbered=False)
    except ValueError as error:
        raise UserError(f"{tflite} is no export of edge/export.py: {error}") from error
    if labels != config["labels"]:
        raise UserError(f"{tflite} has other labels than the run")
    sources = [files.sha256(run / "model.keras")]
    tuned = files.read_json(run / "qat" / "config.json")
    if tuned and tuned["settings"]["model_sha256"] in sources:
        sources.append(files.sha256(run / "qat" / "saved_model"))
    made_from = [digest for digest in sources if bytes.fromhex(digest) in content]
    if not made_from:
        raise UserError(f"{tflite} was not made from {run / 'model.keras'}")
    report = files.read_json(tflite.with_suffix(".report.json"))
    if report is None:
        raise UserError(f"{tflite} lacks its .report.json: run edge/export.py again")
    return content, made_from[0], report


def arrays(split, preprocessing):
    """Returns the images of a split, as raw pixels, and their labels."""
    from keras_resnet.training.data import batching

    pairs = batching.images(split, preprocessing).as_numpy_iterator()
    images, labels = zip(*pairs, strict=True)
    return np.stack(images), np.stack(labels)


# --- Files and figures --------------------------------------------------------


def write_weights(model, path):
    """Writes a .weights.h5 of a float32 `keras.Model`, with kernels in float16.

    Biases and batch normalization stay in float32: variances span more powers of
    two than float16 has. Equal weights give equal bytes.
    """

    def copy(name, item):
        if isinstance(item, h5py.Group):
            new = target.create_group(name)
            if not len(item):
                return  # of a layer without weights: Keras numbers inputs as they come
        else:
            dtype = "float16" if item.ndim > 1 else "float32"
            new = target.create_dataset(name, data=item[()], dtype=dtype)
        new.attrs.update(item.attrs)

    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / path.name
        model.save_weights(whole)
        with h5py.File(whole, "r") as source, h5py.File(path, "w") as target:
            target.attrs.update(source.attrs)
            source.visititems(copy)


def _float_scores(model, path, preprocessing, images):
    """Returns the scores of the weights in the file, not of those in training."""
    from keras_resnet.weights import formats

    formats.load(model, path)
    return model.predict(preprocessing.normalize(images), batch_size=100, verbose=0)


def int8_scores(path, images):
    """Returns what the device's runner makes of raw images, one row for each."""
    classifier = Classifier(path)
    return np.stack([classifier.scores(image) for image in images])


def accuracy(scores, labels):
    """Returns the accuracy of scores, one row for each image, as a card tells it."""
    from keras_resnet.training import accuracy as measured

    pairs = list(zip(scores, labels, strict=True))
    whole, first = (
        measured.of_scores(lambda row: row, some) for some in (pairs, pairs[:FIRST])
    )
    top1, images = whole["top1"], whole["examples_evaluated"]
    return {
        "top1": top1,
        "top5": whole["top5"],
        "images": images,
        "standard_error": standard_error(top1, images),
        "first_images": first["examples_evaluated"],
        "first_top1": first["top1"],
    }


def standard_error(share, count):
    """Returns the binomial standard error of a share of so many images."""
    return math.sqrt(share * (1 - share) / count)


def _described(path, destination):
    return {
        "file": destination.as_posix(),
        "bytes": path.stat().st_size,
        "sha256": files.sha256(path),
    }


# --- The card -----------------------------------------------------------------


def _training(run, config, report, examples, hardware):
    """Returns how the network of a `Run` came about, without a path of this machine."""
    from keras_resnet.training.runs import folder as run_folder

    directory = run.directory.resolve()
    history = (directory / "history.csv").read_text(encoding="utf-8").splitlines()
    runs = directory.parent
    settings, quantize = _portable(config["settings"], runs), report["quantize"]
    folder = {"model_dir": f"runs/{directory.name}"}
    # Runs of benchmarks.gpu_pretrain say how they were made.
    made_by = config.get("command") or _command("training/train.py", settings | folder)
    commands = [made_by]
    of_config = ("settings", "recipe", "versions")
    told = {key: config[key] for key in of_config}
    if quantize == "qat":
        aware = run_folder.read_config(directory / "qat")
        told["qat"] = {key: aware[key] for key in of_config}
        chosen = aware["settings"] | aware["recipe"]
        names = ("strategy", "cpu_replicas", "epochs", "learning_rate")
        chosen = folder | {name: chosen[name] for name in names}
        commands.append(_command("training/qat.py", chosen))
    commands.append(_command("edge/export.py", folder | {"quantize": quantize}))
    rates = [float(row["examples_per_second"]) for row in csv.DictReader(history)]
    return {
        "commands": commands,
        **_portable(told, runs),
        "metrics": run.metrics,
        "hardware": hardware,
        # Of the float training, evaluations not counted.
        "seconds": round(sum(examples / rate for rate in rates)),
        "history": history,
    }


def _command(script, settings):
    """Returns a command line; where the data lies is up to whoever repeats it."""
    chosen = {k: v for k, v in settings.items() if v is not None and k != "data_dir"}
    words = [f"--{name}={value}" for name, value in chosen.items()]
    return " ".join(["python", script, *words])


def _portable(value, runs):
    """Shortens absolute paths, wherever they are: runs/... or the last part."""
    if isinstance(value, dict):
        return {key: _portable(item, runs) for key, item in value.items()}
    if isinstance(value, list):
        return [_portable(item, runs) for item in value]
    if not (isinstance(value, str) and pathlib.Path(value).is_absolute()):
        return value
    path = pathlib.Path(value)
    inside = path.is_relative_to(runs)
    return f"runs/{path.relative_to(runs).as_posix()}" if inside else path.name


def _register(registered, model, source, card):
    """Writes the row of a file into the registry, in the place of an older one."""
    found = card["float"]["accuracy"]
    percent = [f"{100 * found[key]:.2f}" for key in ("top1", "top5")]
    row = {
        "model": model,
        "tag": TAG,
        "dataset": "cifar10",
        "licence": card["licence"],
        "stride_on": "1x1",
        "classifier": "yes",
        "left_out": "-",
        "normalization": "zoo",
        "interpolation": "bilinear",
        "evaluations": ":".join(["32", "1.0", *percent]),
        "digest": card["float"]["sha256"],
        "source": source,
    }
    header, *lines = registered.read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line.split("\t")[:2] != [model, TAG]]
    lines.append("\t".join(row[column] for column in header.split("\t")))
    order = keras_resnet.list_models()
    lines.sort(key=lambda line: order.index(line.partition("\t")[0]))
    files.write_text(registered, "\n".join([header, *lines]) + "\n")


def _show_in_docs(page, rows):
    before = page.read_text(encoding="utf-8").partition("| Model |")[0]
    files.write_text(page, f"{before}{rows}\n")


if __name__ == "__main__":
    app.run(sys.modules[__name__])
