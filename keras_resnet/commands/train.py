r"""Trains a ResNet.

Examples:
  python training/train.py --strategy=mirrored
      ResNet-20 on the embedded digits; no download, no GPU, a minute.
  python training/train.py --model=resnet8 --dataset=cifar10 --epochs=30 \
      --strategy=mirrored --cpu_replicas=2
      Two replicas on two halves of the CPU.
  python training/train.py --model=resnet18 --dataset=folder --data_dir=photos
      Your own images, in photos/CLASS/IMAGE.

Stopped at any moment and started again with the same flags, it continues and ends
with the weights of an unbroken run.
"""

import dataclasses

from absl import flags

from keras_resnet import console
from keras_resnet.commands import app

FLAGS = flags.FLAGS


def define_flags():
    """Defines the flags of the command."""
    flags.DEFINE_string("model", "resnet20", "A model of the zoo.")
    flags.DEFINE_string(
        "dataset", "digits", "digits, folder or a tensorflow-datasets dataset."
    )
    flags.DEFINE_string("data_dir", None, "Where the dataset lies.")
    flags.DEFINE_integer(
        "hold_out",
        None,
        "Evaluate on so many images of the training split, and train on the others: "
        "for choices that must not see the test split.",
        lower_bound=1,
    )
    flags.DEFINE_string(
        "recipe", None, "Hyperparameters (training/recipes.py); default: by dataset."
    )
    app.define_training_flags(
        "the recipe's", "the recipe's, scaled from its batch to yours"
    )
    flags.DEFINE_integer("batch_size", None, "Over all replicas.", lower_bound=1)
    flags.DEFINE_integer("image_size", None, "In pixels, at least 32.", lower_bound=32)
    flags.DEFINE_enum(
        "precision",
        "float32",
        ["float32", "mixed_bfloat16", "mixed_float16"],
        "Policy.",
    )
    flags.DEFINE_string(
        "weights", None, "Start from these: a name (imagenet) or a file."
    )
    flags.DEFINE_string(
        "teacher",
        None,
        "Learn from its scores too (distillation): a model that ships with weights "
        "(resnet20), or the folder of a run.",
    )
    flags.DEFINE_enum(
        "damaged_images",
        None,
        ["stop", "skip"],
        "What to do about images that cannot be decoded; default: stop.",
    )
    flags.DEFINE_boolean("cache", False, "Keep the encoded images in memory.")
    flags.DEFINE_integer(
        "evaluation_epochs", 1, "Epochs between evaluations.", lower_bound=1
    )
    flags.DEFINE_integer(
        "seed", 0, "Of weights, order and augmentation.", lower_bound=0
    )
    flags.DEFINE_string("model_dir", None, "Default: runs/<model>-<dataset>.")


def main():
    """Trains as the flags say."""
    console.import_tensorflow()
    from keras_resnet.training import loop

    names = [field.name for field in dataclasses.fields(loop.Settings)]
    settings = loop.Settings(**{name: FLAGS[name].value for name in names})
    directory = FLAGS.model_dir or f"runs/{FLAGS.model}-{FLAGS.dataset}"
    metrics = loop.train(settings, directory, FLAGS.checkpoint_steps, FLAGS.cache)
    print(
        f"held-out top-1 {metrics['top1']:.2%} on {metrics['examples_evaluated']} "
        f"images after {metrics['epochs']} epochs, "
        f"{metrics['examples_per_second']:.0f} examples/s; files in {directory}"
    )
