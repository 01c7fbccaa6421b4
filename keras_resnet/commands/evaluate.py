r"""Measures top-1 and top-5 of a model on a whole held-out split.

Examples:
  python training/evaluate.py --model=runs/resnet20-cifar10/model.keras
      The data and the preprocessing of its run.
  python training/evaluate.py --model=resnet20.tflite --dataset=cifar10
      The file that the device gets, on the device's runtime.
  python training/evaluate.py --model=my.keras --normalization=torch \
      --crop_fraction=0.875 --dataset=folder --data_dir=photos --views=ten_crop

Writes MODEL.evaluation.json.
"""

import pathlib

from absl import flags

from keras_resnet import console
from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("model", None, "A .keras or .tflite file.", required=True)
    flags.DEFINE_string("dataset", None, "Default: that of the model's run.")
    flags.DEFINE_string("data_dir", None, "Where the dataset lies.")
    flags.DEFINE_enum(
        "views",
        "single",
        ["single", "ten_crop", "multi_scale"],
        "Of each image: the centre, ten crops, or five sizes (the paper, section 4.1).",
    )
    flags.DEFINE_string(
        "normalization",
        None,
        "Of a .keras file without a run: zoo, torch, tf, caffe, raw.",
    )
    flags.DEFINE_float(
        "crop_fraction",
        None,
        "The crop's share of the resized image; default: the model's, else 1.",
        lower_bound=0.01,
        upper_bound=1,
    )


def main():
    """Evaluates as the flags say."""
    console.import_tensorflow()
    from keras_resnet import files

    path = pathlib.Path(FLAGS.model)
    if path.suffix not in (".keras", ".tflite"):
        raise UserError(f"--model must be .keras or .tflite. Received: {FLAGS.model!r}")
    evaluate = _evaluate_tflite if path.suffix == ".tflite" else _evaluate_keras
    metrics = {"views": FLAGS.views, **evaluate(path)}
    output = path.with_name(path.name + ".evaluation.json")
    files.write_json(output, metrics)
    print(
        f"top-1 {metrics['top1']:.2%}, top-5 {metrics['top5']:.2%} on "
        f"{metrics['examples_evaluated']} images of {metrics['dataset']}; in {output}"
    )


def _evaluate_tflite(path):
    from keras_resnet.runner import Classifier
    from keras_resnet.training import evaluation
    from keras_resnet.training.data import batching, damaged

    if FLAGS.views != "single" or FLAGS.normalization:
        raise UserError("--views and --normalization need a .keras model")
    classifier = Classifier(path)
    how = classifier.preprocessing
    preprocessing = _preprocessing(
        classifier.input_shape[1:3],
        crop_fraction=how.crop_fraction if how else 1.0,
        interpolation=how.interpolation if how else "bilinear",
    )
    dataset = _dataset(path.parent, classifier.classes)
    images = batching.images(dataset.held_out, preprocessing)
    with damaged.damaged_images_named(dataset):
        metrics = evaluation.of_scores(classifier.scores, images.as_numpy_iterator())
    return {"dataset": dataset.name, **metrics}


def _evaluate_keras(path):
    import tensorflow as tf

    from keras_resnet.training import evaluation
    from keras_resnet.training.data import damaged, decoding
    from keras_resnet.training.runs import folder as run_folder

    model = run_folder.load_keras_file(path)
    preprocessing = _preprocessing_of(model, path.parent)
    dataset = _dataset(path.parent, model.output_shape[-1])
    split = dataset.held_out
    with damaged.damaged_images_named(dataset):
        if FLAGS.views == "single":
            evaluate = evaluation.evaluator(model, tf.distribute.get_strategy())
            metrics = evaluate(split, preprocessing, min(64, split.examples))
            metrics["examples_evaluated"] = split.examples
        else:
            score = getattr(evaluation, FLAGS.views)(model, preprocessing)
            decoded = split.read().map(
                lambda encoded, label: (decoding.decode(encoded), label),
                num_parallel_calls=tf.data.AUTOTUNE,
            )
            metrics = evaluation.of_scores(score, decoded.as_numpy_iterator())
    return {"dataset": dataset.name, **metrics}


def _preprocessing_of(model, folder):
    from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
    from keras_resnet.training.runs import folder as run_folder

    if FLAGS.normalization:
        if FLAGS.normalization not in NORMALIZATIONS:
            raise unknown("normalization", FLAGS.normalization, NORMALIZATIONS)
        found = NORMALIZATIONS[FLAGS.normalization]
        return _preprocessing(model.input_shape[1:3], **found)
    if not (folder / "config.json").exists():
        raise UserError(f"{FLAGS.model} lies in no run: it needs --normalization")
    found = Preprocessing(**run_folder.read_config(folder)["preprocessing"])
    return _preprocessing(**vars(found))


def _preprocessing(input_size, **arguments):
    from keras_resnet.preprocessing import Preprocessing

    if FLAGS.crop_fraction:
        arguments["crop_fraction"] = FLAGS.crop_fraction
    return Preprocessing(input_size, **arguments)


def _dataset(folder, classes):
    from keras_resnet.training.data import sources
    from keras_resnet.training.runs import folder as run_folder

    if FLAGS.dataset:
        dataset = sources.load(FLAGS.dataset, FLAGS.data_dir)
    elif (folder / "config.json").exists():
        dataset = run_folder.dataset_of(run_folder.read_config(folder), FLAGS.data_dir)
    else:
        raise UserError(f"{FLAGS.model} lies in no run: it needs --dataset")
    if len(dataset.labels) != classes:
        raise UserError(
            f"the model has {classes} classes, dataset {dataset.name} has "
            f"{len(dataset.labels)}"
        )
    return dataset
