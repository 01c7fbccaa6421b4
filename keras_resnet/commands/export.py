r"""Converts a trained model to a .tflite for the device, and reports on it.

Examples:
  python edge/export.py --model_dir=runs/resnet20-digits
      The result of train.py, or of qat.py where that was run.
  python edge/export.py --model_dir=runs/resnet20-digits --quantize=float16
  python edge/export.py --model=resnet50 --dataset=folder --data_dir=photos \
      --output=resnet50.tflite
  python edge/export.py --model=my.keras --normalization=torch \
      --dataset=folder --data_dir=photos --output=my.tflite

The report goes to OUTPUT.report.json, and with the error of each layer to
OUTPUT.report.html, too.
The file takes raw uint8 RGB pixels and returns uint8 scores; the labels and how to
resize are inside. Run it with edge/run_tflite.py.
"""

import dataclasses
import math
import pathlib

from absl import flags

from keras_resnet import console
from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS


@dataclasses.dataclass
class Source:
    """What is exported.

    Attributes:
        model: the float `keras.Model`.
        preprocessing: what it expects.
        labels: names of its classes, or None.
        dataset: the `datasets.Dataset` to calibrate and report with, or
            None.
        aware: folder that qat.py wrote, or None.
        licence: of the published weights that it has or was trained from, or None.
    """

    model: object
    preprocessing: object
    labels: list | None
    dataset: object
    aware: pathlib.Path | None
    licence: str | None


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("model_dir", None, "A run of train.py.")
    flags.DEFINE_string("model", None, "Or a model of the zoo, or a .keras file.")
    flags.DEFINE_string(
        "weights",
        None,
        "With a model of the zoo: a name (imagenet, a1_in1k) or a file.",
    )
    flags.DEFINE_enum(
        "quantize",
        None,
        ["qat", "int8", "int16x8", "dynamic", "float16", "none"],
        "Default: qat where qat.py was run, else int8 (post-training).",
    )
    flags.DEFINE_string("output", None, "Default: MODEL_DIR/model-<quantize>.tflite.")
    flags.DEFINE_integer(
        "calibration_examples",
        500,
        "Training images, for int8 and int16x8.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "report_examples", 1000, "Held-out images, for the report.", lower_bound=1
    )
    flags.DEFINE_string(
        "target",
        "litert",
        "What must run the file, or nothing is written: litert, tflite_runtime (2.14), "
        "edgetpu, or a configuration of Arm's Vela such as ethos-u55-128.",
    )
    flags.DEFINE_float(
        "max_drop",
        1.0,
        "Points of top-1 that may be lost, or nothing is written.",
        lower_bound=0.0,
    )
    flags.register_validator(
        "max_drop", lambda points: not math.isnan(points), "must be a number"
    )
    flags.DEFINE_string("author", None, "Person or organization, for the metadata.")
    flags.DEFINE_string(
        "license",
        None,
        "Name of the licence, for the metadata; default: that of published weights.",
    )
    flags.DEFINE_string(
        "dataset", None, "Images to calibrate and report; default: those of the run."
    )
    flags.DEFINE_string(
        "data_dir",
        None,
        "Where the dataset lies; default: where the training found it.",
    )
    flags.DEFINE_string(
        "normalization",
        None,
        "With --model=PATH.keras, what it was trained with: zoo, torch, tf, caffe (as "
        "in keras.applications) or raw (0..255).",
    )
    flags.DEFINE_float(
        "crop_fraction",
        None,
        "With --model: the crop's share of the resized image; default: that of "
        "published weights, else 1.",
    )
    flags.DEFINE_string(
        "labels",
        None,
        "With --model: names of the classes, one a line; default: those of ImageNet "
        "for published weights, else those of the dataset where their number fits.",
    )


def main():
    """Exports as the flags say."""
    _check_flags()
    console.import_tensorflow()
    from keras_resnet import files
    from keras_resnet.deploy import fold_normalization
    from keras_resnet.edge.convert import converter as conversion
    from keras_resnet.edge.convert import metadata
    from keras_resnet.edge.report import page as report_page
    from keras_resnet.edge.report import summary as export_report

    source = _from_run() if FLAGS.model_dir else _from_model()
    quantize = FLAGS.quantize or ("qat" if source.aware else "int8")
    _check_source(source, quantize)
    try:
        model, preprocessing = fold_normalization(source.model, source.preprocessing)
    except ValueError as error:
        raise UserError(str(error)) from error

    def convert(quantize):
        if quantize == "qat":
            saved_model = source.aware / "saved_model"
            content = conversion.from_saved_model(saved_model, preprocessing)
        else:
            calibrated = quantize in conversion.CALIBRATED
            calibration = _calibration(source) if calibrated else None
            content = conversion.from_keras(model, preprocessing, quantize, calibration)
        about = metadata.About(
            source.model.name,
            author=FLAGS.author,
            license=FLAGS.license or source.licence,
            run_sha256=_trained_sha256(source, quantize),
        )
        return metadata.with_metadata(content, source.labels, preprocessing, about)

    output = pathlib.Path(
        FLAGS.output or pathlib.Path(FLAGS.model_dir) / f"model-{quantize}.tflite"
    )
    with files.replacing(output) as temporary:  # fails now if it cannot be written
        content = convert(quantize)
        pathlib.Path(temporary).write_bytes(content)
        integer = quantize == "int8" or quantize == "qat" and not _float_layers(source)
        report, compiled = export_report.check(
            source.model.name, quantize, content, FLAGS.target, integer
        )
        if source.dataset:
            comparison = export_report.Comparison(source, FLAGS.report_examples)
            report["compared"] = comparison.of(content)
        export_report.refuse_drop(report, FLAGS.max_drop)
        if source.dataset:
            quantized = _in_float(source) if quantize == "qat" else model
            if quantized:
                report["layers"] = comparison.layers(content, quantized, preprocessing)
            if quantize == "qat":  # what the fine-tuning has to be better than
                report["post_training"] = comparison.of(convert("int8"))
    if compiled:
        path = output.with_name(f"{output.stem}_vela.tflite")
        with files.replacing(path) as temporary:
            pathlib.Path(temporary).write_bytes(compiled)
    files.write_json(output.with_suffix(".report.json"), report)
    files.write_text(output.with_suffix(".report.html"), report_page.html(report))
    print(f"{output}\n{export_report.text(report)}")


def _float_layers(source):
    """Returns the layers that qat.py was told to leave in float."""
    from keras_resnet.training.runs import folder as run_folder

    return run_folder.read_config(source.aware)["settings"].get("float_layers")


def _in_float(source):
    """Returns the float model with the fine-tuned weights, or None without them."""
    from keras_resnet.training.runs import model_file

    path = source.aware / "model.keras"
    return model_file.load(path) if path.is_file() else None


def _check_flags():
    from keras_resnet.edge.targets import checks as targets

    if FLAGS.target not in targets.TARGETS:
        raise unknown("target", FLAGS.target, targets.TARGETS)
    if bool(FLAGS.model_dir) == bool(FLAGS.model):
        raise UserError(
            "give either --model_dir (a run of train.py) or --model (a name or a "
            f".keras file). Received: --model_dir={FLAGS.model_dir} "
            f"--model={FLAGS.model}"
        )
    of_a_model = ("weights", "normalization", "crop_fraction", "labels")
    if FLAGS.model_dir and any(FLAGS[name].present for name in of_a_model):
        raise UserError(
            f"--{', --'.join(of_a_model)} need --model: a run knows its own"
        )
    if FLAGS.weights and FLAGS.model.endswith(".keras"):
        raise UserError("--weights needs a model of the zoo: a .keras file has its own")
    if FLAGS.model and not FLAGS.output:
        raise UserError("--model needs --output=PATH.tflite")
    if FLAGS.output and not FLAGS.output.endswith(".tflite"):
        raise UserError(f"--output must end in .tflite. Received: {FLAGS.output!r}")
    if FLAGS.crop_fraction is not None and not 0 < FLAGS.crop_fraction <= 1:
        raise UserError(
            f"--crop_fraction must be in (0, 1]. Received: {FLAGS.crop_fraction}"
        )


def _from_run():
    from keras_resnet.preprocessing import Preprocessing
    from keras_resnet.training.data import sources
    from keras_resnet.training.runs import folder as run_folder
    from keras_resnet.training.runs import model_file

    run = pathlib.Path(FLAGS.model_dir)
    config = run_folder.read_config(run)
    model = model_file.load(run / "model.keras")
    preprocessing = Preprocessing(**config["preprocessing"])
    if FLAGS.dataset:
        dataset = sources.load(FLAGS.dataset, FLAGS.data_dir)
    else:
        dataset = run_folder.dataset_of(config, FLAGS.data_dir)
    aware = _aware(run) if FLAGS.quantize in (None, "qat") else None
    licence = _licence_of_run(config["settings"])
    return Source(model, preprocessing, config["labels"], dataset, aware, licence)


def _licence_of_run(settings):
    """Returns the licence of the published weights that a run began from, or None."""
    from keras_resnet.weights import registry

    try:
        return registry.find(settings["model"], settings.get("weights") or "").licence
    except ValueError:  # from nothing, from a file, or an adopted model
        return None


def _aware(run):
    """Returns the folder that qat.py wrote, or None where it was not run."""
    from keras_resnet import files
    from keras_resnet.training.runs import folder as run_folder

    if not run_folder.read_metrics(run / "qat"):  # written last
        return None
    trained = run_folder.read_config(run / "qat")["settings"].get("model_sha256")
    if trained != files.sha256(run / "model.keras"):
        raise UserError(
            f"{run / 'qat'} was made from another model.keras: delete it and run "
            "training/qat.py again, or choose --quantize=int8"
        )
    return run / "qat"


def _from_model():
    import keras_resnet
    from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
    from keras_resnet.training.data import sources
    from keras_resnet.training.runs import model_file

    names = keras_resnet.list_models()
    if FLAGS.model in names:
        model = keras_resnet.create_model(FLAGS.model, weights=FLAGS.weights)
    elif FLAGS.model.endswith(".keras"):
        model = model_file.load(pathlib.Path(FLAGS.model))
        if not FLAGS.normalization:
            raise UserError(
                "--model=PATH.keras needs --normalization: "
                f"{', '.join(NORMALIZATIONS)}. Without the right one the device would "
                "be less accurate than the model"
            )
    else:
        raise unknown("model (a name or a .keras file)", FLAGS.model, names)
    if FLAGS.normalization and FLAGS.normalization not in NORMALIZATIONS:
        raise unknown("normalization", FLAGS.normalization, NORMALIZATIONS)
    model_file.check_classifier(model)
    shape = model.inputs[0].shape
    preprocessing = getattr(model, "preprocessing", None)  # of published weights
    if FLAGS.normalization or not preprocessing:
        preprocessing = Preprocessing(
            shape[1:3], **NORMALIZATIONS[FLAGS.normalization or "zoo"]
        )
    if FLAGS.crop_fraction:
        preprocessing = dataclasses.replace(
            preprocessing, crop_fraction=FLAGS.crop_fraction
        )
    dataset = FLAGS.dataset and sources.load(FLAGS.dataset, FLAGS.data_dir)
    labels = _read_labels(model, dataset)
    licence = getattr(model, "licence", None)  # of published weights
    return Source(model, preprocessing, labels, dataset, None, licence)


def _read_labels(model, dataset):
    from keras_resnet.preprocessing import classes

    if not FLAGS.labels:
        if getattr(model, "preprocessing", None) is not None:  # published weights
            return [name for _, name in classes(model.dataset)]
        fits = dataset and len(dataset.labels) == model.outputs[0].shape[-1]
        return list(dataset.labels) if fits else None
    try:
        text = pathlib.Path(FLAGS.labels).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--labels cannot be read: {error}") from error
    return text.rstrip().split("\n")


def _check_source(source, quantize):
    from keras_resnet.edge.convert import converter as conversion

    classes = source.model.outputs[0].shape[-1]
    if source.labels is not None and len(source.labels) != classes:
        raise UserError(
            f"the model has {classes} classes. Received: {len(source.labels)} labels"
        )
    for label in source.labels or ():
        if not label.strip() or "\n" in label:
            raise UserError(f"a label must be one line of text. Received: {label!r}")
    non_commercial = source.licence and "-nc" in source.licence
    if non_commercial and (FLAGS.license or source.licence).lower() != source.licence:
        raise UserError(
            f"the weights are under {source.licence}, and so is the file: leave "
            f"--license out. Received: --license={FLAGS.license}"
        )
    if quantize == "qat" and source.aware is None:
        raise UserError(
            "--quantize=qat needs a finished run of training/qat.py "
            f"--model_dir={FLAGS.model_dir}"
        )
    if quantize in conversion.CALIBRATED and source.dataset is None:
        raise UserError(
            f"--quantize={quantize} needs images to calibrate with: --dataset=folder "
            "--data_dir=DIR, or another dataset"
        )


def _trained_sha256(source, quantize):
    """Returns the hash of what is exported, or None for the zoo's weights."""
    from keras_resnet import files

    if quantize == "qat":
        return files.sha256(source.aware / "saved_model")
    run = FLAGS.model_dir and pathlib.Path(FLAGS.model_dir) / "model.keras"
    path = pathlib.Path(run or FLAGS.model)
    return files.sha256(path) if path.is_file() else None


def _calibration(source):
    from keras_resnet.training.data import batching

    return batching.calibration_images(
        source.dataset, source.preprocessing, FLAGS.calibration_examples
    )
