"""Train, evaluate, checkpoint, resume, report: one loop for all training.

`fit` takes the Keras to use as an argument: Keras 3 for a float model, tf_keras
for a quantization-aware one. Data, schedule, metrics and files are the same.

The loop is ours and not Keras' `fit`, which fails with several workers (keras
#20585), cannot resume inside an epoch and waits for the device after every step.
"""

import contextlib
import dataclasses
import pathlib
import signal
import sys
import time

import keras
import numpy as np
import tensorflow as tf

import keras_resnet
from keras_resnet import files
from keras_resnet.errors import Terminated, unknown
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.training import distillation, optimizers, recipes, schedules
from keras_resnet.training.averaging import Averages
from keras_resnet.training.data import (
    augmentation,
    batching,
    damaged,
    datasets,
    sources,
)
from keras_resnet.training.distribute import strategies, workers
from keras_resnet.training.evaluation import evaluator
from keras_resnet.training.fused_norm import with_fused_norm
from keras_resnet.training.runs import checkpoints, report
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.steps import SUMS, step_function
from keras_resnet.training.stochastic_depth import with_stochastic_depth

# Between two looks at the device, in seconds: for the progress bar, a loss that is
# no number any more, and signals.
LOOK = 1.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What the flags of `train.py` say; `None` means that the recipe decides."""

    model: str
    dataset: str
    data_dir: str | None
    hold_out: int | None
    recipe: str | None
    strategy: str
    cpu_replicas: int
    batch_size: int | None
    epochs: int | None
    learning_rate: float | None
    image_size: int | None
    precision: str
    weights: str | None
    teacher: str | None
    damaged_images: str | None
    evaluation_epochs: int
    seed: int


def train(settings, directory, checkpoint_steps=1000, cache=False):
    """Trains a model of the zoo and writes the files of the run.

    Args:
        settings: a `Settings`.
        directory: the run's folder, new or of a run with equal settings: that
            one is continued.
        checkpoint_steps: see `fit`.
        cache: whether to keep the encoded images in memory.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        UserError: a setting is wrong, or the folder holds another run.
    """
    directory = pathlib.Path(directory)
    if settings.model not in keras_resnet.list_models():
        raise unknown("model", settings.model, keras_resnet.list_models())
    name = settings.recipe or recipes.default_name(settings.dataset)
    if name not in recipes.RECIPES:
        raise unknown("recipe", name, recipes.RECIPES)
    recipe = _overridden(recipes.RECIPES[name], settings)
    warning = recipes.recipe_warning(recipe, settings.dataset)
    if warning:
        print(f"warning: --recipe={name}: {warning}", file=sys.stderr)
    teacher = settings.teacher
    if teacher and teacher not in keras_resnet.list_models():
        teacher = _absolute(teacher)
    weights = settings.weights
    if weights and pathlib.Path(weights).expanduser().is_file():
        weights = _absolute(weights)
    settings = dataclasses.replace(
        settings,
        recipe=name,
        data_dir=_absolute(settings.data_dir),
        weights=weights,
        teacher=teacher,
    )
    strategy = strategies.create(settings.strategy, settings.cpu_replicas)
    dataset = sources.load(
        settings.dataset,
        settings.data_dir,
        settings.hold_out,
        settings.damaged_images,
    )
    if cache:
        dataset = datasets.in_memory(dataset)
    check_batch_size(recipe, dataset, strategy)
    if settings.precision == "mixed_float16" and not tf.config.list_physical_devices(
        "GPU"
    ):
        print(
            "warning: CPUs compute slowly in float16: use --precision=mixed_bfloat16",
            file=sys.stderr,
        )

    def build(precision, activation):
        keras.config.set_dtype_policy(precision)
        shape = (recipe.image_size, recipe.image_size, 3)
        return build_model(
            settings.model,
            weights=settings.weights,
            input_shape=shape,
            classes=len(dataset.labels),
            classifier_activation=activation,
            shortcut=recipe.shortcut,
        )

    keras.utils.set_random_seed(settings.seed)
    with strategy.scope():
        plain = build(settings.precision, activation=None)
        model = with_fused_norm(plain, any_size=recipe.train_size is not None)
        if recipe.stochastic_depth:
            model = with_stochastic_depth(model, recipe.stochastic_depth)
    # Published weights want the normalization that they were trained with.
    size = (recipe.image_size, recipe.image_size)
    preprocessing = dataclasses.replace(
        getattr(plain, "preprocessing", None) or Preprocessing(size),
        input_size=size,
        crop_fraction=recipe.crop_fraction,
        interpolation=recipe.interpolation,
    )
    distilled = None
    if settings.teacher:
        with strategy.scope():
            distilled = distillation.open_teacher(
                settings.teacher, dataset.labels, _while_training(preprocessing, recipe)
            )
    result = directory / "model.keras"
    finished = run_folder.claim(
        directory,
        result,
        settings,
        recipe,
        preprocessing,
        dataset.labels,
        write=strategies.is_chief(strategy),
    )
    if finished:
        return finished
    with workers.lost_ones_told():
        metrics = fit(
            keras,
            model,
            dataset,
            preprocessing,
            recipe,
            strategy,
            settings.seed,
            directory,
            checkpoint_steps,
            settings.evaluation_epochs,
            from_logits=True,
            distilled=distilled,
        )
    # The file holds a plain float32 model without optimizer, whatever was trained.
    saved = build("float32", activation="softmax")
    saved.set_weights(model.get_weights())
    if strategies.is_chief(strategy):
        with files.replacing(result) as temporary:
            saved.save(temporary)
        files.write_json(directory / "metrics.json", metrics)
    return metrics


def build_model(name, **arguments):
    """Builds a model of the zoo by its name in `list_models()`.

    Raises:
        UserError: an argument is wrong, or the weights cannot be loaded.
    """
    builder = getattr(keras_resnet, name.replace("resnet", "ResNet"))
    try:
        return builder(**arguments)
    except ValueError as error:
        raise UserError(str(error)) from error


def _overridden(recipe, settings):
    """Returns the recipe with what the flags change."""
    batch_size = settings.batch_size or recipe.batch_size
    rate = settings.learning_rate
    if rate is None:
        rate = recipe.scaled_rate(batch_size)
    return dataclasses.replace(
        recipes.with_epochs(recipe, settings.epochs or recipe.epochs),
        batch_size=batch_size,
        learning_rate=rate,
        image_size=settings.image_size or recipe.image_size,
        train_size=None if settings.image_size else recipe.train_size,
    )


def _absolute(path):
    return str(pathlib.Path(path).expanduser().resolve()) if path else None


def check_batch_size(recipe, dataset, strategy):
    """Raises `UserError` where batches cannot be cut or shared evenly."""
    batch_size, replicas = recipe.batch_size, strategy.num_replicas_in_sync
    parts = 2 * replicas if augmentation.mixes(recipe) else replicas
    if batch_size % parts:
        nearest = max(1, round(batch_size / parts)) * parts
        pairs = "pairs for each of " if parts > replicas else ""
        raise UserError(
            f"--batch_size must be a multiple of {parts}, for {pairs}the {replicas} "
            f"replicas: try {nearest}. Received: {batch_size}"
        )
    if batch_size > dataset.train.examples:
        raise UserError(
            f"--batch_size must be at most the {dataset.train.examples} training "
            f"images. Received: {batch_size}"
        )


# --- The loop ------------------------------------------------------------------


def fit(
    api,
    model,
    dataset,
    preprocessing,
    recipe,
    strategy,
    seed,
    directory,
    checkpoint_steps=1000,
    evaluation_epochs=1,
    from_logits=False,
    distilled=None,
):
    """Trains a model and writes history, curves, TensorBoard and checkpoints.

    Args:
        api: `keras` or `tf_keras`, whichever `model` belongs to.
        model: a model built in the scope of `strategy`.
        dataset: a `datasets.Dataset`.
        preprocessing: what `model` expects.
        recipe: a `recipes.Recipe`.
        strategy: a `tf.distribute.Strategy`.
        seed: of the order of the examples and their augmentation.
        directory: the run's folder; continues from its newest checkpoint.
        checkpoint_steps: steps between two checkpoints; there is one at the end
            of each epoch too.
        evaluation_epochs: epochs between two evaluations; there is one at the end
            of the last epoch too.
        from_logits: whether the model ends with logits and not with a softmax.
        distilled: see `distillation.open_teacher`.

    Returns:
        The metrics, as in `metrics.json`.

    Raises:
        UserError: the loss or a weight is not finite any more.
        Terminated: this or another worker received SIGTERM; a checkpoint was written.
    """
    steps = batching.steps_per_epoch(dataset, recipe.batch_size)
    rates = schedules.learning_rates(recipe, steps)
    averages = None
    with strategy.scope():
        optimizer = optimizers.create(api, model, recipe, rates)
        totals = tf.Variable(tf.zeros(SUMS, tf.float64))
        if recipe.average_epochs:
            averages = Averages(model, recipe.average_epochs * steps)
    run_steps = step_function(
        model, optimizer, recipe, strategy, totals, from_logits, distilled, averages
    )
    evaluate = evaluator(model, strategy, from_logits)

    variables = [*model.variables, *optimizer.variables, totals]
    variables += averages.variables if averages else []
    saved = checkpoints.Checkpoints(
        run_folder.checkpoints_of(directory), variables, strategy
    )
    step, state = saved.restore()
    history, seconds = state or ([], 0.0)
    if 0 < step < len(rates):
        print(f"continuing after step {step} of {len(rates)}")
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: batching.train_batches(
                dataset,
                _while_training(preprocessing, recipe),
                recipe,
                seed,
                step,
                batching.Share.of(context),
            )
        )
    )
    board = None
    if strategies.is_chief(strategy):
        for folder in (directory, run_folder.checkpoints_of(directory)):
            files.remove_unfinished(folder)
        board = report.open_board(directory)

    def means():
        examples, loss, right, _ = totals.numpy()
        return {"loss": loss / examples, "top1": right / examples}

    def save():
        try:
            saved.save(step, (history, seconds))
        except FloatingPointError as error:
            raise _diverged("weights are", step, recipe, saved) from error

    pace = _Pace(strategy)
    with (
        damaged.damaged_images_named(dataset),
        _termination(strategy) as terminated,
    ):
        while len(history) < recipe.epochs:
            # A run that was terminated may have to evaluate first: done == steps.
            epoch = len(history)
            done = step - epoch * steps
            print(f"Epoch {epoch + 1}/{recipe.epochs}")
            bar = api.utils.Progbar(steps, stateful_metrics=["loss", "top1"])
            while done < steps:
                started = time.perf_counter()
                until_saved = checkpoint_steps - step % checkpoint_steps
                count = pace.steps(at_most=min(steps - done, until_saved))
                waited = run_steps(batches, tf.constant(count))
                *_, finite = totals.numpy()
                elapsed = time.perf_counter() - started
                seconds += elapsed
                pace.add(count, float(waited), elapsed)
                step, done = step + count, done + count
                if finite < done:
                    bad = step - done + int(finite)
                    raise _diverged("loss is", bad, recipe, saved)
                if sys.stdout.isatty():
                    bar.update(done, list(means().items()), finalize=False)
                stop = terminated()
                if stop or (done < steps and step % checkpoint_steps == 0):
                    save()
                if stop:
                    raise Terminated
            values = means()
            _synchronize(model)
            if (epoch + 1) % evaluation_epochs == 0 or step == len(rates):
                with averages.taken() if averages else contextlib.nullcontext():
                    result = evaluate(
                        dataset.held_out, preprocessing, recipe.batch_size
                    )
                values |= {f"val_{name}": result[name] for name in result}
            values["learning_rate"] = rates[step - 1]
            values["examples_per_second"] = steps * recipe.batch_size / seconds
            bar.update(steps, list(values.items()), finalize=True)
            pace.warn_once()
            history.append({"epoch": epoch + 1, **values})
            totals.assign(tf.zeros_like(totals))
            seconds = 0.0
            if board:
                report.write_history(directory, history)
                report.write_scalars(board, epoch + 1, values)
            save()
            if terminated():
                raise Terminated
    if averages:
        averages.take()
    if board:
        report.draw_curves(directory, history)
    last = history[-1]
    values = (
        last["val_top1"],
        last["val_top5"],
        last["val_loss"],
        float(np.median([row["examples_per_second"] for row in history])),
        recipe.epochs,
        dataset.held_out.examples,
    )
    return dict(zip(run_folder.METRICS, values, strict=True))


def _while_training(preprocessing, recipe):
    """Returns the preprocessing at the size of the images that are trained on."""
    if recipe.train_size is None:
        return preprocessing
    return dataclasses.replace(preprocessing, input_size=(recipe.train_size,) * 2)


class _Pace:
    """Plans how many steps to make without a look at the device; times them."""

    def __init__(self, strategy):
        # Workers must make equally many: in a loop TensorFlow tells collective
        # operations apart by the number of the round.
        self._fixed = strategies.is_multi_worker(strategy)
        self._steps = 8 if self._fixed else 1
        self._waited = self._elapsed = 0.0
        self._started = False
        self._warned = False

    def steps(self, at_most):
        """Returns how many steps to make now."""
        return min(self._steps, at_most)

    def add(self, steps, waited, elapsed):
        """Notes what some steps took.

        Args:
            steps: how many.
            waited: seconds of them that went into waiting for batches.
            elapsed: seconds in all.
        """
        if not self._fixed:
            self._steps = max(1, min(4 * self._steps, int(steps * LOOK / elapsed)))
        if self._started:  # the first fill buffers and compile
            self._waited += waited
            self._elapsed += elapsed
        self._started = True

    def warn_once(self):
        """Says so where a third of the time or more went into waiting."""
        share = self._waited / self._elapsed if self._elapsed else 0.0
        if share > 1 / 3 and not self._warned:
            print(
                f"warning: {share:.0%} of the time went into waiting for images: their "
                "reading and decoding limits the speed, not the model. More CPU cores, "
                "a faster disk or --cache help",
                file=sys.stderr,
            )
            self._warned = True


def _diverged(what, step, recipe, saved):
    """Returns the `UserError` about numbers that are not finite any more.

    The same command would repeat every step: it does not help to continue.
    """
    newest = saved.newest()
    return UserError(
        f"the {what} no finite number after step {step}: try a lower "
        f"--learning_rate. Received: {recipe.learning_rate:g}. "
        + (
            f"The last checkpoint with finite weights is {newest}, but the same flags "
            "end here again: use another --model_dir, or delete this one"
            if newest
            else "No checkpoint yet: the same --model_dir will do"
        )
    )


@contextlib.contextmanager
def _termination(strategy):
    """Yields a function that tells whether a worker has received SIGTERM.

    Of several workers all must call it equally often, and get the same answer.
    """
    received = []

    @tf.function
    def added_up(count):
        counts = strategy.run(lambda: tf.identity(count))
        return strategy.reduce("SUM", counts, axis=None)

    def terminated():
        if strategies.is_multi_worker(strategy):
            return added_up(tf.constant(float(len(received)))) > 0
        return bool(received)

    before = signal.signal(signal.SIGTERM, lambda number, frame: received.append(1))
    try:
        yield terminated
    finally:
        signal.signal(signal.SIGTERM, before)


def _synchronize(model):
    """Gives all replicas the same batch statistics and quantization ranges.

    While it trains, each replica keeps its own; a file holds one value. What is
    evaluated must be what is saved, and a resumed run must not differ.
    """
    for variable in model.non_trainable_variables:
        variable.assign(variable.numpy())
