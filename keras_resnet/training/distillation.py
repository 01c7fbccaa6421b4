"""A teacher: a trained model whose scores a smaller one learns.

Hinton et al., arXiv 1503.02531. The teacher sees what the student sees, the augmented
image, and is not trained.
"""

import pathlib

import keras
import tensorflow as tf

import keras_resnet
from keras_resnet.preprocessing import classes
from keras_resnet.runner.errors import UserError
from keras_resnet.training import losses
from keras_resnet.training.data import decoding
from keras_resnet.training.fused_norm import with_fused_norm
from keras_resnet.training.runs import folder as run_folder

# Of the loss; the rest is that of the labels. Cho and Hariharan, arXiv 1910.01348,
# and Tian et al., arXiv 1910.10699, section 4, use these for small images.
SHARE = 0.9
TEMPERATURE = 4.0


def open_teacher(name, labels, preprocessing):
    """Opens a teacher. Call it in the scope of the strategy.

    Args:
        name: a model of the zoo that ships with weights ("resnet20"), or the folder
            of a run of train.py.
        labels: names of the student's classes.
        preprocessing: what the student's images went through.

    Returns:
        Function of (the student's input, its logits, its losses by the labels) ->
        losses, float32 (batch,), in which the teacher has its share.

    Raises:
        UserError: there is no such teacher, or its classes or its input size are not
            the student's.
    """
    if name in keras_resnet.list_models():
        try:
            model = getattr(keras_resnet, name.replace("resnet", "ResNet"))()
        except ValueError as error:  # its weights cannot be had
            raise UserError(f"--teacher={name}: {error}") from error
        if not hasattr(model, "preprocessing"):
            raise UserError(
                f"--teacher: no weights ship for {name}: train it, and give its "
                f"--model_dir. Received: {name!r}"
            )
        expected = model.preprocessing
        known = [identifier for identifier, _ in classes(model.dataset)]
        if list(labels) != known:
            raise UserError(
                f"--teacher={name} knows {len(known)} classes ({known[0]}, ...), the "
                f"dataset has {len(labels)} others ({labels[0]}, ...)"
            )
    elif pathlib.Path(name).is_dir():
        config = run_folder.read_config(name)
        if config["labels"] != list(labels):
            raise UserError(
                f"--teacher={name} was trained on other classes than the dataset's"
            )
        model, expected = run_folder.load_model(name, config)
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
        soft = losses.distillation(logits, tf.stop_gradient(taught), TEMPERATURE)
        return (1 - SHARE) * values + SHARE * soft

    return distilled


def _size(preprocessing):
    return "x".join(map(str, preprocessing.input_size))
