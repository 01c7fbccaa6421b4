"""Distillation: a small model learns the scores of a trained one, its teacher.

Hinton et al., arXiv 1503.02531. The teacher gets the same augmented images as the
student, and is not trained.
"""

import pathlib

import keras
import tensorflow as tf

import keras_resnet
from keras_resnet.preprocessing import identifiers
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.learning import UNKNOWN
from keras_resnet.training import losses
from keras_resnet.training.data import decoding
from keras_resnet.training.fused_norm import with_fused_norm
from keras_resnet.training.runs.run import Run

# Share of the teacher in the loss; the labels have the rest. Used for small images by
# Cho and Hariharan, arXiv 1910.01348, and Tian et al., arXiv 1910.10699, section 4.
SHARE = 0.9
TEMPERATURE = 4.0


def open_teacher(name, labels, preprocessing):
    """Opens a teacher; call it in the scope of the strategy.

    The name is that of a model that ships with weights, or the folder of a run. Labels
    and preprocessing are the student's.

    Returns:
        Function of (the student's input, its logits, its losses on the labels), which
        returns the losses on labels and teacher together, float32 (batch,).

    Raises:
        UserError: there is no such teacher, or its classes or its input size are
            not the student's.
    """
    if name in keras_resnet.list_models():
        try:
            model = keras_resnet.create_model(name)
        except UserError as error:  # its weights cannot be had
            raise UserError(f"--teacher={name}: {error}") from error
        if not hasattr(model, "preprocessing"):
            raise UserError(
                f"--teacher: no weights ship for {name}: train it, and give its "
                f"--model_dir. Received: {name!r}"
            )
        expected = model.preprocessing
        known = identifiers(model.labels)
        if list(labels) != known:
            raise UserError(
                f"--teacher={name} knows {len(known)} classes ({known[0]}, ...), the "
                f"dataset has {len(labels)} others ({labels[0]}, ...)"
            )
    elif pathlib.Path(name).is_dir():
        run = Run.open(name)
        # The student learns the classes alone; `UNKNOWN` is added to it at the end.
        known = run.labels[:-1] if run.labels[-1] == UNKNOWN else run.labels
        if tuple(labels) not in (known, run.labels):
            raise UserError(
                f"--teacher={name} was trained on other classes than the dataset's"
            )
        model, expected = run.load_model(), run.preprocessing
    else:
        raise UserError(
            "--teacher must be a model of the zoo that ships with weights, or the "
            f"folder of a run. Received: {name!r}"
        )
    if expected.input_size != preprocessing.input_size:
        raise UserError(
            f"--teacher={name} takes images of {_size(expected)} pixels, the student "
            f"of {_size(preprocessing)}: set --image_size"
        )
    # In the student's precision, and without the softmax.
    policy = keras.config.dtype_policy().name

    def clone(layer):
        layer_config = layer.get_config()
        if layer is model.layers[-1]:
            layer_config["activation"] = None
        else:
            layer_config["dtype"] = policy
        return type(layer).from_config(layer_config)

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    copy = with_fused_norm(copy)

    def distilled(images, logits, values):
        images = decoding.renormalize(images, preprocessing, expected)
        taught = tf.cast(copy(images, training=False), tf.float32)
        taught = tf.stop_gradient(taught[:, : len(labels)])
        soft = losses.distillation(logits, taught, TEMPERATURE)
        return (1 - SHARE) * values + SHARE * soft

    return distilled


def _size(preprocessing):
    return "x".join(map(str, preprocessing.input_size))
