"""Makes a run of a model that was trained elsewhere, for fine-tuning and export."""

import dataclasses

import tensorflow as tf

from keras_resnet import files
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import accuracy, checks, recipes
from keras_resnet.training.data import damaged, sources
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file
from keras_resnet.training.runs.run import Run
from keras_resnet.training.settings import absolute


def adopt(
    model,
    normalization,
    dataset,
    model_dir,
    *,
    data_dir=None,
    crop_fraction=1.0,
    batch_size=None,
):
    """Makes a run of a Keras model of your own, for `quantize_aware` and `edge.export`.

    The model is evaluated on the held-out images first. If the accuracy is lower than
    the one you know, the normalization, the resizing or the order of the classes is
    not that of its training.

    Args:
        model: path of a .keras file of a classifier of square RGB images that ends
            with a softmax. It is copied.
        normalization: how the pixels were normalized in its training: "zoo", "torch",
            "tf", "caffe" (as in keras.applications) or "raw" (0..255).
        dataset: what it was trained on, a name as for `train`. The classes are in the
            order of the dataset; those of a folder are sorted by name.
        model_dir: folder of the run to make. A complete run of the same settings is
            returned as it is.
        data_dir: folder of the dataset.
        crop_fraction: side of the centre crop relative to the shorter side of the
            resized image, in (0, 1].
        batch_size: images in one step of `quantize_aware`. `None` is the batch size of
            the dataset's recipe.

    Returns:
        A `Run`.

    Raises:
        UserError: the model is no classifier of the dataset's images, or an argument
            is wrong. Nothing was written then.
    """
    checks.choice("normalization", normalization, NORMALIZATIONS)
    crop_fraction = checks.positive_number("crop_fraction", crop_fraction, most=1)
    if batch_size is not None:
        batch_size = checks.whole_number("batch_size", batch_size, 1)
    path, directory = checks.path("model", model), checks.path("model_dir", model_dir)
    network = model_file.load(path)
    model_file.check_classifier(network)
    height, width = network.inputs[0].shape[1:3]
    if height != width:
        raise UserError(
            f"fine-tuning needs square images. Received: a model of {height}x{width}"
        )
    data = sources.load(dataset, data_dir)
    accuracy.check_classes(network.outputs[0].shape[-1], data)
    recipe = _recipe(dataset, height, crop_fraction, batch_size)
    strategy = tf.distribute.get_strategy()
    checks.batch_size(recipe, data, strategy)
    preprocessing = Preprocessing(
        (height, width), **NORMALIZATIONS[normalization], crop_fraction=crop_fraction
    )
    # Under the names that runs of `train` have.
    settings = {
        "model": str(path),
        "model_sha256": files.sha256(path),
        "dataset": dataset,
        "data_dir": absolute("data_dir", data_dir),
        "normalization": normalization,
        "seed": 0,
    }
    result = directory / "model.keras"
    metrics = run_folder.open_run(
        directory, result, settings, recipe, preprocessing, data
    )
    if not metrics:
        with damaged.damaged_images_named(data):
            found = accuracy.of_split(network, data.held_out, preprocessing)
        of_training = {"examples_per_second": 0.0, "epochs": 0}  # there was none here
        metrics = {**found, **of_training}
        licence = getattr(network, "licence", None)
        model_file.save(network, result, preprocessing, data.labels, licence)
        files.write_json(directory / "metrics.json", metrics)
    return Run(directory, metrics, tuple(data.labels), preprocessing)


def _recipe(dataset, image_size, crop_fraction, batch_size):
    """Returns the dataset's recipe at the model's size, to derive fine-tuning from."""
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
