"""The arithmetic of benchmarks.jax_training: an epoch is one program on a GPU.

The same as `losses`, `augmentation` and the optimizer of `keras_resnet.training`, for
JAX; a test compares them.
"""

import functools

import jax
from jax import numpy as jnp

# name of `keras_resnet.training.data.augmentation`: whether it flips.
AUGMENTATIONS = {"pad_crop": False, "pad_crop_flip": True}


def augmented(images, key, flip):
    """Shifts by up to an eighth of each side, filled with black; may flip.

    The images are uint8 (batch, height, width, 3).
    """
    count, *shape = images.shape
    vertical, horizontal = (side // 8 for side in shape[:2])
    padding = ((0, 0), (vertical, vertical), (horizontal, horizontal), (0, 0))
    padded = jnp.pad(images, padding)
    keys = jax.random.split(key, 3)
    top = jax.random.randint(keys[0], (count,), 0, 2 * vertical + 1)
    left = jax.random.randint(keys[1], (count,), 0, 2 * horizontal + 1)
    images = jax.vmap(
        lambda image, y, x: jax.lax.dynamic_slice(image, (y, x, 0), shape)
    )(padded, top, left)
    if not flip:
        return images
    mirrored = jax.random.bernoulli(keys[2], shape=(count, 1, 1, 1))
    return jnp.where(mirrored, images[:, :, ::-1], images)


def normalized(images, preprocessing):
    """Normalizes raw pixels, as `Preprocessing.normalize` does."""
    mean, std = preprocessing.mean_rgb_255, preprocessing.std_rgb_255
    images = (images.astype(jnp.float32) - jnp.array(mean)) / jnp.array(std)
    return images if preprocessing.channel_order == "rgb" else images[..., ::-1]


def cross_entropy(logits, labels):
    """Returns the cross entropy of each example, in nats."""
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)[:, 0]


def distillation(logits, taught, temperature):
    """Returns how far the softened scores are from the teacher's, of each example."""
    teacher = jax.nn.log_softmax(taught / temperature)
    student = jax.nn.log_softmax(logits / temperature)
    divergence = jnp.sum(jnp.exp(teacher) * (teacher - student), -1)
    return temperature**2 * divergence


def descended(weights, momenta, gradients, rate, recipe):
    """Makes a step of SGD with momentum, as Keras does; returns weights and momenta."""
    momentum = recipe["momentum"]
    momenta = [
        momentum * before - rate * gradient
        for before, gradient in zip(momenta, gradients, strict=True)
    ]
    steps = momenta
    if recipe["nesterov"]:
        steps = [
            momentum * after - rate * gradient
            for after, gradient in zip(momenta, gradients, strict=True)
        ]
    weights = [weight + step for weight, step in zip(weights, steps, strict=True)]
    return weights, momenta


def penalty(weights, recipe):
    """Returns the weight decay that is added to the loss."""
    decayed = [w for w in weights if recipe["decay_all"] or w.ndim > 1]
    return recipe["weight_decay"] * sum(jnp.sum(w * w) / 2 for w in decayed)


def epoch_function(logits_of, taught_by, recipe, preprocessing, plan, one_program=True):
    """Returns a function that trains for an epoch.

    Args:
        logits_of: function of (weights, statistics, images) -> (logits, statistics) in
            training; `statistics` are those of batch normalization.
        taught_by: function of raw images -> logits of the teacher, or None.
        recipe: of the run, a dict.
        preprocessing: `Preprocessing` of the student.
        plan: dict of "share" and "temperature" of the distillation.
        one_program: whether the whole epoch is compiled, or a step alone: XLA is slow
            at convolutions in loops on a CPU.

    Returns:
        Function of (state, images, labels, rates of the steps, key) -> (state, sums of
        the losses and of the correct examples of every step). The state is (weights,
        momenta, statistics), three lists; its buffers are reused.
    """
    flip = AUGMENTATIONS[recipe["augmentation"]]

    def loss_of(weights, statistics, pixels, labels, taught):
        images = normalized(pixels, preprocessing)
        logits, statistics = logits_of(weights, statistics, images)
        logits = logits.astype(jnp.float32)
        values = cross_entropy(logits, labels)
        if taught is not None:
            soft = distillation(logits, taught, plan["temperature"])
            values = (1 - plan["share"]) * values + plan["share"] * soft
        right = jnp.sum(logits.argmax(-1) == labels)
        loss = values.mean() + penalty(weights, recipe)
        return loss, (statistics, jnp.stack([values.sum(), right]))

    def step(state, images, labels, batch, rate, key):
        weights, momenta, statistics = state
        pixels = augmented(images[batch], key, flip)
        taught = None if taught_by is None else taught_by(pixels)
        gradients, (statistics, sums) = jax.grad(loss_of, has_aux=True)(
            weights, statistics, pixels, labels[batch], taught
        )
        weights, momenta = descended(weights, momenta, gradients, rate, recipe)
        return (weights, momenta, statistics), sums

    def of_epoch(images, rates, key):
        """Returns the batches, the rate and the key of every step."""
        order_key, key = jax.random.split(key)
        order = jax.random.permutation(order_key, len(images))
        used = order[: len(rates) * recipe["batch_size"]]
        batches = used.reshape(len(rates), recipe["batch_size"])
        return batches, rates, jax.random.split(key, len(rates))

    if not one_program:
        compiled = jax.jit(step, donate_argnums=0)

        def step_by_step(state, images, labels, rates, key):
            sums = []
            for given in zip(*of_epoch(images, rates, key), strict=True):
                state, found = compiled(state, images, labels, *given)
                sums.append(found)
            return state, jnp.stack(sums)

        return step_by_step

    @functools.partial(jax.jit, donate_argnums=0)
    def epoch(state, images, labels, rates, key):
        return jax.lax.scan(
            lambda state, given: step(state, images, labels, *given),
            state,
            of_epoch(images, rates, key),
        )

    return epoch
