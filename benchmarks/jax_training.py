"""Trains a network that benchmarks.gpu_plan planned, with Keras on JAX.

Imported where KERAS_BACKEND is jax.
"""

import csv
import functools
import io
import time

import jax
import keras
import numpy as np
from jax import numpy as jnp

import keras_resnet
from benchmarks import jax_steps
from keras_resnet import files, model_metadata
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError

CHECKPOINT_EPOCHS = 5
STATE = "state.npz"  # the checkpoint of a training
HISTORY = (
    *("epoch", "loss", "top1", "val_loss", "val_top1", "val_top5"),
    *("learning_rate", "examples_per_second"),
)


def train(output, network, plan, arrays):
    """Trains a network to its end, from its checkpoint if there is one.

    Args:
        output: folder of the plan, a `pathlib.Path`.
        network: its entry in the plan.
        plan: the plan.
        arrays: the arrays of the images of both splits.

    Returns:
        The metrics, as in the `metrics.json` that it writes beside `model.keras` and
        `history.csv`.

    Raises:
        UserError: the loss is not finite any more.
    """
    directory = output / network["folder"]
    config = files.read_json(directory / "config.json")
    settings, recipe = config["settings"], config["recipe"]
    preprocessing = Preprocessing(**config["preprocessing"])
    build = functools.partial(
        keras_resnet.create_model,
        settings["model"],
        weights=None,
        input_shape=(32, 32, 3),
        classes=len(config["labels"]),
        shortcut=recipe["shortcut"],
    )
    keras.utils.set_random_seed(settings["seed"])
    keras.config.set_dtype_policy(settings["precision"])
    model = build(classifier_activation=None)
    taught_by = None
    if network["teacher"]:
        taught_by = teacher(keras_resnet.load(output / network["teacher"]))
    keras.config.set_dtype_policy("float32")

    def logits_of(weights, statistics, images):
        return model.stateless_call(weights, statistics, images, training=True)

    make_epoch = jax_steps.epoch_function(
        logits_of,
        taught_by,
        recipe,
        preprocessing,
        plan,
        one_program=jax.default_backend() != "cpu",
    )
    # Copies: an epoch reuses the memory of its state.
    weights = [jnp.copy(variable.value) for variable in model.trainable_variables]
    statistics = [jnp.copy(v.value) for v in model.non_trainable_variables]
    state = (weights, [jnp.zeros_like(weight) for weight in weights], statistics)
    state, history = restored(directory / STATE, state)
    images, labels = (jnp.asarray(arrays[f"train_{n}"]) for n in ("images", "labels"))
    rates = np.float32(network["rates"]).reshape(recipe["epochs"], -1)
    examples = rates.shape[1] * recipe["batch_size"]
    key = jax.random.key(settings["seed"])
    while len(history) < recipe["epochs"]:
        epoch = len(history)
        started = time.perf_counter()
        state, sums = make_epoch(
            state, images, labels, rates[epoch], jax.random.fold_in(key, epoch)
        )
        loss, right = np.asarray(sums, np.float64).sum(0) / examples  # waits
        if not np.isfinite(loss):
            raise UserError(
                f"the loss of {settings['model']} is no finite number after epoch "
                f"{epoch + 1}: delete {directory}, and plan with a lower rate"
            )
        history.append(
            {
                "epoch": epoch + 1,
                "loss": loss,
                "top1": right,
                "learning_rate": float(rates[epoch, -1]),
                "examples_per_second": examples / (time.perf_counter() - started),
            }
        )
        print(
            f"{settings['model']} {epoch + 1}/{recipe['epochs']}: loss {loss:.4f}, "
            f"top-1 {right:.2%}, {history[-1]['examples_per_second']:,.0f} images/s",
            flush=True,
        )
        if (epoch + 1) % CHECKPOINT_EPOCHS == 0:
            save(directory / STATE, state, history)
    weights, _, statistics = state
    for variables, values in (
        (model.trainable_variables, weights),
        (model.non_trainable_variables, statistics),
    ):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    saved = build()
    saved.set_weights(model.get_weights())
    metrics = evaluated(saved, preprocessing, arrays)
    history[-1] |= {f"val_{name}": metrics[name] for name in ("loss", "top1", "top5")}
    speeds = [row["examples_per_second"] for row in history]
    metrics |= {
        "examples_per_second": float(np.median(speeds)),
        "epochs": recipe["epochs"],
    }
    model_metadata.attach(saved, preprocessing, config["labels"])
    with files.replacing(directory / "model.keras") as temporary:
        saved.save(temporary)
    files.write_text(directory / "history.csv", csv_text(history))
    versions = config["versions"] | {"jax": jax.__version__}
    hardware = jax.devices()[0].device_kind
    command = "python -m benchmarks.gpu_pretrain"
    told = {"versions": versions, "hardware": hardware, "command": command}
    files.write_json(directory / "config.json", config | told)
    files.write_json(directory / "metrics.json", metrics)  # the last
    return metrics


def teacher(model):
    """Returns a function of raw images (batch, 32, 32, 3) -> the logits of a model."""
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
    weights = [variable.value for variable in copy.trainable_variables]
    statistics = [variable.value for variable in copy.non_trainable_variables]

    def taught_by(pixels):
        images = jax_steps.normalized(pixels, model.preprocessing)
        logits, _ = copy.stateless_call(weights, statistics, images, training=False)
        return logits.astype(jnp.float32)

    return taught_by


def evaluated(model, preprocessing, arrays):
    """Returns loss, top-1 and top-5 of a float32 model on the held-out images."""
    images, labels = arrays["held_out_images"], arrays["held_out_labels"]
    scores = model.predict(preprocessing.normalize(images), batch_size=500, verbose=0)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    right = scores[np.arange(len(labels)), labels]
    return {
        "top1": float(np.mean(best[:, 0] == labels)),
        "top5": float(np.mean((best == labels[:, None]).any(1))),
        "loss": float(-np.log(np.maximum(right, 1e-7)).mean()),
        "examples_evaluated": len(labels),
    }


def save(path, state, history):
    """Writes a checkpoint."""
    leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(state))}
    with files.replacing(path) as temporary:
        np.savez(temporary, history=csv_text(history), **leaves)


def restored(path, state):
    """Returns the state and the history of a checkpoint, or those of a beginning."""
    if not path.exists():
        return state, []
    with np.load(path) as found:
        leaves, structure = jax.tree.flatten(state)
        leaves = [jnp.asarray(found[str(i)]) for i in range(len(leaves))]
        rows = csv.DictReader(io.StringIO(str(found["history"])))
        history = [{k: float(v) for k, v in row.items() if v} for row in rows]
    history = [row | {"epoch": int(row["epoch"])} for row in history]
    return jax.tree.unflatten(structure, leaves), history


def csv_text(history):
    """Returns the history as training/train.py writes it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()
