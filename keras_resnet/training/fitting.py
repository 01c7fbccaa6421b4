"""What a dataset changes in a recipe."""

import dataclasses
import sys

from keras_resnet.training import checks, recipes

# A batch that is made smaller leaves an epoch so many steps, but has so many images
# where there are enough: batch normalization is poor with less.
LEAST_STEPS = 4
LEAST_BATCH = 8


def fitted(recipe, dataset, strategy, batch_size=None, learning_rate=None, epochs=None):
    """Returns the recipe as a dataset needs it.

    If no batch can be filled with the training images, a smaller one is taken, and the
    learning rate is scaled as `Recipe.scaled_rate` says; a line on stderr says so.
    Several labels for an image need a loss of their own. The number of images decides
    on the epochs of a fine-tuning.

    Args:
        recipe: `Recipe`.
        dataset: `Dataset`.
        strategy: `tf.distribute.Strategy`, whose replicas share each batch.
        batch_size: what the user asks for, which is never changed, or None.
        learning_rate: likewise.
        epochs: likewise.

    Raises:
        UserError: replicas cannot share a batch, or images do not fill it.
    """
    if dataset.multi_label:
        recipe = dataclasses.replace(recipe, loss="multi_label")
    examples = dataset.train.examples
    if (recipe.transfer or recipe.published) and epochs is None:
        epochs = recipes.epochs_for(examples, recipe.task)
        recipe = dataclasses.replace(recipe, epochs=epochs)
    if batch_size is None and recipe.batch_size > examples:
        size = _smaller_batch(examples, checks.parts_of_batch(recipe, strategy))
        rate = learning_rate or recipe.scaled_rate(size)
        scaled = "" if recipe.transfer else f"; learning_rate is {rate:g}"
        print(
            f"batch_size is {size} instead of {recipe.batch_size}, because there are "
            f"{examples} training images{scaled}",
            file=sys.stderr,
        )
        recipe = dataclasses.replace(recipe, batch_size=size, learning_rate=rate)
    checks.batch_size(recipe, dataset, strategy)
    return recipe


def _smaller_batch(examples, parts):
    """Returns a power of two, times `parts`, that `examples` fill."""
    size = parts
    while 2 * size <= min(examples, max(examples // LEAST_STEPS, LEAST_BATCH)):
        size *= 2
    return size
