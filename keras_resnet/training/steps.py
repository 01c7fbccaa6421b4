"""Compiled training steps: many run before the host looks at the device again."""

import tensorflow as tf

from keras_resnet.training import tasks

# Number of sums over steps: examples, losses, correct ones, steps of finite loss.
SUMS = 4


def step_function(
    model,
    optimizer,
    recipe,
    strategy,
    totals,
    from_logits=False,
    distilled=None,
    averages=None,
):
    """Returns a function that makes training steps.

    The model and its optimizer, which is built, are of Keras 3 or tf_keras. Every step
    adds to `totals`, a variable, float64 (SUMS,). `distilled` is what
    `distillation.open_teacher` returns.

    The correct ones are what `tasks.Task.right` counts of the recipe's task.

    Returns:
        Function of (iterator of batches, number of steps), which makes the steps and
        returns the seconds that it waited for batches, float64.
    """
    scale_loss = getattr(optimizer, "scale_loss", lambda loss: loss)
    task = tasks.of(recipe)
    loss_of = task.loss_function(model, recipe)

    def on_replica(images, targets):
        with tf.GradientTape() as tape:
            logits = model(images, training=not recipe.frozen_statistics)
            logits = tf.nest.map_structure(lambda x: tf.cast(x, tf.float32), logits)
            if not from_logits:
                logits = task.logits_of(logits)
            values = loss_of(logits, targets)
            if distilled:
                values = distilled(images, logits, values)
            # Replicas add up their gradients: each has its share of the mean.
            loss = tf.reduce_sum(values) / recipe.batch_size
            penalty = _penalty(model, recipe) / strategy.num_replicas_in_sync
            scaled = scale_loss(loss + penalty)
        gradients = tape.gradient(scaled, model.trainable_variables)
        if recipe.clip_norm:
            gradients = _clipped(gradients, scale_loss(recipe.clip_norm))
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        right = task.right(logits, targets) if task.right else tf.zeros_like(values)
        return tf.stack(
            [
                tf.cast(len(values), tf.float64),
                tf.reduce_sum(tf.cast(values, tf.float64)),
                tf.reduce_sum(tf.cast(right, tf.float64)),
            ]
        )

    @tf.function
    def run_steps(iterator, count):
        waited = tf.constant(0.0, tf.float64)
        for _ in tf.range(count):
            started = tf.timestamp()
            with tf.control_dependencies([started]):
                batch = next(iterator)
            arrived = [
                strategy.experimental_local_results(part)[-1]
                for part in tf.nest.flatten(batch)
            ]
            with tf.control_dependencies(arrived):
                waited += tf.timestamp() - started
            sums = strategy.run(on_replica, args=batch)
            sums = strategy.reduce("SUM", sums, axis=None)
            finite = tf.math.is_finite(totals[1] + sums[1])
            finite = tf.cast(finite, tf.float64)[tf.newaxis]
            totals.assign_add(tf.concat([sums, finite], 0))
            if averages is not None:
                averages.update(optimizer.iterations)
        return waited

    return run_steps


def _penalty(model, recipe):
    """Returns the weight decay, and what layers themselves add to the loss."""
    penalty = sum(model.losses, 0.0)
    if recipe.optimizer == "sgd":  # the others have the decay in their steps
        decayed = [
            tf.nn.l2_loss(tf.cast(variable, tf.float32))
            for variable in model.trainable_variables
            if recipe.decay_all or len(variable.shape) > 1
        ]
        penalty += recipe.weight_decay * tf.add_n(decayed)
    return penalty


def _clipped(gradients, norm):
    """Scales the gradients of all replicas together to a norm of at most `norm`.

    Keras would clip each replica's share by itself.
    """
    context = tf.distribute.get_replica_context()
    whole = context.all_reduce("SUM", gradients)
    clipped, _ = tf.clip_by_global_norm(whole, norm)
    # The optimizer adds the replicas up.
    return [gradient / context.num_replicas_in_sync for gradient in clipped]
