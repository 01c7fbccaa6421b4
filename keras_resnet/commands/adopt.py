r"""Makes a run of a trained Keras 3 model of your own, for qat.py and edge/export.py.

Example:
  python training/adopt.py --model=my.keras --normalization=torch \
      --dataset=folder --data_dir=photos --model_dir=runs/my
  python training/qat.py --model_dir=runs/my
  python edge/export.py --model_dir=runs/my --target=edgetpu

Evaluates the model on the held-out images first: what it says must be what you know of
your model, or the normalization or the order of the classes is not the one it was
trained with. Classes are in the order of the dataset: for a folder that of the names.
"""

import dataclasses
import pathlib
import shutil

from absl import flags

from keras_resnet import console
from keras_resnet.errors import unknown
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the run is made of, under the names that runs of train.py have."""

    model: str
    model_sha256: str
    dataset: str
    data_dir: str | None
    normalization: str
    seed: int = 0


def adopt(
    model, directory, normalization, dataset, data_dir, crop_fraction, batch_size
):
    """Makes a run of a model that was trained elsewhere.

    Args:
        model: path of a .keras file.
        directory: path of the run; a complete one of equal settings is left alone.
        normalization: one of `keras_resnet.preprocessing.NORMALIZATIONS`.
        dataset: name, as for `sources.load`.
        data_dir: likewise.
        crop_fraction: the crop's share of the resized image, in (0, 1].
        batch_size: for fine-tuning; None: the recipe's.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        UserError: the model is no classifier of the dataset's images, or an argument
            is wrong.
    """
    import tensorflow as tf

    from keras_resnet import files
    from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
    from keras_resnet.training import evaluation, loop
    from keras_resnet.training.data import damaged, sources
    from keras_resnet.training.runs import folder as run_folder

    if normalization not in NORMALIZATIONS:
        raise unknown("normalization", normalization, NORMALIZATIONS)
    if not 0 < crop_fraction <= 1:
        raise UserError(f"--crop_fraction must be in (0, 1]. Received: {crop_fraction}")
    path, directory = pathlib.Path(model), pathlib.Path(directory)
    model = run_folder.load_keras_file(path)
    run_folder.check_classifier(model)
    height, width = model.inputs[0].shape[1:3]
    if height != width:
        raise UserError(
            f"fine-tuning needs square images. Received: a model of {height}x{width}"
        )
    name, dataset = dataset, sources.load(dataset, data_dir)
    classes = model.outputs[0].shape[-1]
    if len(dataset.labels) != classes:
        raise UserError(
            f"the model has {classes} classes, dataset {dataset.name} has "
            f"{len(dataset.labels)}"
        )
    strategy = tf.distribute.get_strategy()
    recipe = _recipe(name, height, crop_fraction, batch_size)
    loop.check_batch_size(recipe, dataset, strategy)
    preprocessing = Preprocessing(
        (height, width), **NORMALIZATIONS[normalization], crop_fraction=crop_fraction
    )
    settings = Settings(
        model=str(path),
        model_sha256=files.sha256(path),
        dataset=name,
        data_dir=data_dir and str(pathlib.Path(data_dir).resolve()),
        normalization=normalization,
    )
    result = directory / "model.keras"
    metrics = run_folder.claim(
        directory, result, settings, recipe, preprocessing, dataset.labels
    )
    if metrics:
        return metrics
    evaluate = evaluation.evaluator(model, strategy)
    split = dataset.held_out
    with damaged.damaged_images_named(dataset):
        found = evaluate(split, preprocessing, min(64, split.examples))
    of_training = {"examples_per_second": 0.0, "epochs": 0}  # there was none here
    metrics = {**found, **of_training, "examples_evaluated": split.examples}
    with files.replacing(result) as temporary:
        shutil.copyfile(path, temporary)
    files.write_json(directory / "metrics.json", metrics)
    return metrics


def _recipe(dataset, image_size, crop_fraction, batch_size):
    """Returns the dataset's recipe at the model's size: qat.py makes it gentle."""
    from keras_resnet.training import recipes

    recipe = recipes.RECIPES[recipes.default_name(dataset)]
    batch_size = batch_size or recipe.batch_size
    return dataclasses.replace(
        recipe,
        image_size=image_size,
        train_size=None,
        batch_size=batch_size,
        learning_rate=recipe.scaled_rate(batch_size),
        crop_fraction=crop_fraction,
    )


def main():
    """Adopts as the flags say."""
    console.import_tensorflow()
    metrics = adopt(
        FLAGS.model,
        FLAGS.model_dir,
        FLAGS.normalization,
        FLAGS.dataset,
        FLAGS.data_dir,
        FLAGS.crop_fraction,
        FLAGS.batch_size,
    )
    print(
        f"held-out top-1 {metrics['top1']:.2%} on {metrics['examples_evaluated']} "
        f"images; files in {FLAGS.model_dir}"
    )


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("model", None, "A .keras file, which is copied.", required=True)
    flags.DEFINE_string("model_dir", None, "The run to make.", required=True)
    flags.DEFINE_string(
        "normalization",
        None,
        "What it was trained with: zoo, torch, tf, caffe (as in keras.applications) or "
        "raw (0..255).",
        required=True,
    )
    flags.DEFINE_float("crop_fraction", 1.0, "The crop's share of the resized image.")
    flags.DEFINE_string(
        "dataset", None, "As for train.py: what it was trained on.", required=True
    )
    flags.DEFINE_string("data_dir", None, "Where the dataset lies.")
    flags.DEFINE_integer(
        "batch_size", None, "For qat.py; default: the recipe's.", lower_bound=1
    )
