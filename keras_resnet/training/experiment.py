"""From settings to the files of a run: the wiring of a training.

Whatever a training needs is opened and checked here, before anything is written, and
then handed to the loop.
"""

import dataclasses
import os
import sys
import warnings
from collections.abc import Callable

import keras
import tensorflow as tf

import keras_resnet
from keras_resnet import console, files, heads
from keras_resnet.models import IMAGENET, VARIANTS
from keras_resnet.preprocessing import REDUCED_DECODING_OF_PHOTOGRAPHS, Preprocessing
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.learning import NOTHING, UNKNOWN
from keras_resnet.training import (
    checks,
    distillation,
    fitting,
    loop,
    recipes,
    reporting,
    scopes,
)
from keras_resnet.training.data import by_task, damaged, datasets, survey
from keras_resnet.training.distribute import strategies, workers
from keras_resnet.training.fused_norm import with_fused_norm
from keras_resnet.training.progress import Progress
from keras_resnet.training.reporting.answers import of_model
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.runs import model_file
from keras_resnet.training.runs.run import Run
from keras_resnet.training.scenes import going_on
from keras_resnet.training.settings import Settings
from keras_resnet.training.stochastic_depth import with_stochastic_depth
from keras_resnet.training.transfer import head
from keras_resnet.training.transfer.tuner import Tuner


def train(
    model: str | None = None,
    dataset: str | None = None,
    *,
    task: str = "classify",
    width: float = 1,
    data_dir: str | os.PathLike | None = None,
    hold_out: int | None = None,
    recipe: str | None = None,
    strategy: str = "one_device",
    cpu_replicas: int = 0,
    batch_size: int | None = None,
    epochs: int | None = None,
    learning_rate: float | None = None,
    image_size: int | None = None,
    precision: str = "float32",
    weights: str | os.PathLike | None = None,
    teacher: str | os.PathLike | None = None,
    damaged_images: str | None = None,
    balance: bool = False,
    freeze: str | None = None,
    known_share: float | None = None,
    evaluation_epochs: int = 1,
    seed: int = 0,
    cache: bool = False,
    checkpoint_steps: int = 1000,
    model_dir: str | os.PathLike | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Run:
    """Trains a model of the zoo and writes the files of the run.

    Stopped at any moment and called again, a training continues, and ends with the
    weights of an unbroken one. A complete run is returned as it is.

    Args:
        model: one of `keras_resnet.list_models()`. `None` is "resnet20_224", or for a
            dataset of small images that has a recipe of its own "resnet20". For the
            other tasks it is the backbone; `None` is "resnet16_224", or "resnet14" for
            "digit_scenes".
        dataset: "digits" (embedded, the default), "folder" (your images), "csv" (your
            images, with one label each or with several) or the name of an
            image-classification dataset of tensorflow-datasets. For the other tasks:
            "digit_scenes" (embedded, the default), "voc_folder", "coco_json",
            "yolo_folder", "labelme_folder", "mask_folder" (your pictures, as annotation
            tools write them) or the name of a dataset of tensorflow-datasets.
        task: "classify", "detect" (boxes, see `keras_resnet.heads.detector`) or
            "segment" (masks, see `keras_resnet.heads.segmenter`).
        width: factor on the channels of the network: 0.25, 0.5, 0.75 or a whole number;
            see `keras_resnet.ResNet`. Published weights are for 1.
        data_dir: folder of the dataset. For "folder" it holds DIR/CLASS/IMAGE or
            DIR/{train,val}/CLASS/IMAGE. For "csv" it is the path of a file with the
            columns image, label and, if you like, split. tensorflow-datasets has a
            default.
        hold_out: number of training images to evaluate on in the place of the held-out
            split, to tune without touching that one.
        recipe: name of the hyperparameters, one of `recipes.RECIPES`. `None` takes the
            one for the dataset, and so does `None` for each setting below. "finetune"
            is for your images and every dataset without a recipe of its own: the
            classifier learns first, on the features of published weights. Then all
            layers learn, if training images that are put aside say that this helps, at
            the rate that they say.
        strategy: "one_device" (the first GPU, or the CPU), "mirrored" (all GPUs of this
            machine), "multi_worker" (several machines, see TF_CONFIG) or "tpu".
        cpu_replicas: with "mirrored", number of parts to split the CPU into, each with
            a replica of the model.
        batch_size: images in one training step, over all replicas together. `None` is
            the recipe's, or less if the dataset is smaller than that.
        epochs: passes over the training images, after those for the classifier alone.
        learning_rate: highest learning rate. The recipe's is scaled to the batch size.
        image_size: height and width of the images in pixels, at least 32.
        precision: "float32", "mixed_bfloat16" or "mixed_float16". The saved model is
            float32.
        weights: initial weights, a name such as "imagenet", a file (see
            `keras_resnet.ResNet`) or the folder of a run of `train`. With the recipe
            "finetune", a run goes on: its layers stay, unless you give a
            `learning_rate`, its classes are kept, and new ones are added. "none" is a
            random initialization, and so is `None` with any recipe but "finetune",
            which takes the published ones.
        teacher: a model whose scores are learned too (distillation): the name of one
            that ships with weights, or the folder of a run.
        damaged_images: what to do about images that cannot be decoded: "stop" (the
            default) or "skip".
        balance: whether to show images of small classes several times in an epoch, so
            that it has as many of each class as of the largest.
        freeze: with the recipe "finetune", "backbone" trains the classifier alone.
        known_share: with the recipe "finetune", the share of pictures of the classes
            that the model must know, in (0, 1]. It answers "unknown", its last label,
            for pictures that are farther from what it learned, and for those that are
            like the pictures of nothing in a folder "_none". 1 leaves the label out;
            `None` is 0.95.
        evaluation_epochs: epochs between two evaluations.
        seed: seed of the initial weights, the order of the images and their
            augmentation.
        cache: whether to keep the encoded images in memory.
        checkpoint_steps: training steps between two checkpoints.
        model_dir: folder of the run. `None` is runs/MODEL-DATASET, or if `width` is
            not 1, runs/MODEL_widthWIDTH-DATASET. For the other tasks, -TASK follows.
        progress: function that gets a `Progress` at the beginning of each epoch, about
            once a second, and at its end. `None` prints a progress bar.

    Returns:
        A `Run`.

    Raises:
        UserError: a setting is wrong (nothing was written then), the data cannot be
            read, the folder holds another run, or the loss is not finite any more.
        Terminated: the process received SIGTERM; a checkpoint was written.
    """
    chosen = locals()
    names = [field.name for field in dataclasses.fields(Settings)]
    settings = Settings(**{name: chosen[name] for name in names})
    checks.whole_number("checkpoint_steps", checkpoint_steps, 1)
    default = "-".join(
        filter(None, (f"runs/{settings.network}", settings.dataset, settings.task))
    )
    directory = checks.path("model_dir", model_dir or default)
    hyperparameters = settings.completed_recipe()
    replicated = strategies.create(settings.strategy, settings.cpu_replicas)
    data = _dataset(settings, hyperparameters)
    if cache:
        data = datasets.in_memory(data)
    _check_unknown(data, known_share, settings)
    hyperparameters = fitting.fitted(
        hyperparameters,
        data,
        replicated,
        settings.batch_size,
        settings.learning_rate,
        settings.epochs,
    )
    if data.multi_label and settings.teacher:
        raise UserError(
            "--teacher teaches softmax scores, and these pictures have several labels: "
            "leave it out"
        )
    begun = run_folder.recipe_of_begun(
        directory, dataclasses.asdict(settings), data.fingerprint
    )
    _announce(settings, hyperparameters)
    network, preprocessing, distilled = _networks(
        settings, hyperparameters, data, replicated
    )
    tuner = None
    if hyperparameters.transfer:
        tuner = Tuner(network, data, preprocessing, replicated, settings)
        with damaged.damaged_images_named(data):
            hyperparameters = begun or tuner.decided(hyperparameters)
    answered = head.with_unknown(data, hyperparameters)
    result = directory / "model.keras"
    is_chief = strategies.is_chief(replicated)
    metrics = run_folder.open_run(
        directory,
        result,
        dataclasses.asdict(settings),
        hyperparameters,
        preprocessing,
        answered,
        write=is_chief,
    )
    if not metrics:
        looked_at = survey.examine(data, directory) if is_chief else None
        if tuner:
            with damaged.damaged_images_named(data):
                tuner.start()
        job = loop.Job(
            api=keras,
            model=network,
            dataset=tuner.shown() if tuner else data,
            preprocessing=preprocessing,
            recipe=hyperparameters,
            strategy=replicated,
            seed=settings.seed,
            directory=directory,
            checkpoint_steps=checkpoint_steps,
            evaluation_epochs=settings.evaluation_epochs,
            from_logits=True,
            distilled=distilled,
            progress=progress,
        )
        with workers.report_lost_workers():
            if hyperparameters.epochs:
                metrics = loop.fit(job)
            elif tuner:
                metrics = tuner.metrics()
        # The file holds a plain float32 model, whatever was trained.
        with scopes.random_seed(settings.seed), scopes.dtype_policy("float32"):
            independent = data.multi_label or settings.task == "detect"
            activation = "sigmoid" if independent else "softmax"
            saved = _build(settings, hyperparameters, answered, activation)
            weights = network.get_weights()
            if tuner:
                if not data.multi_label:
                    saved = head.with_directions(saved)
                with damaged.damaged_images_named(data):
                    weights = tuner.weights(hyperparameters)
        saved.set_weights(weights)
        if is_chief:
            licence = getattr(saved, "licence", None)  # of the initial weights
            labels = answered.labels
            model_file.save(saved, result, preprocessing, labels, licence)
            title = reporting.title(
                settings.network, settings.dataset, settings.data_dir
            )
            if settings.task:
                metrics = reporting.scenes.write(
                    directory, title, saved, answered, preprocessing, metrics
                )
            else:
                answers = of_model(saved, answered, preprocessing)
                if tuner:  # its network had another classifier in the training
                    metrics = metrics | answers.accuracy()
                if settings.previous and not data.multi_label:
                    metrics["before"] = settings.previous.compared(answered, answers)
                metrics = reporting.write(
                    directory, title, answered, answers, metrics, looked_at
                )
            files.write_json(directory / "metrics.json", metrics)
    return Run(directory, metrics, tuple(answered.labels), preprocessing)


def _dataset(settings, recipe):
    """Opens the dataset that the settings name."""
    return by_task.load(
        recipe.task,
        settings.dataset,
        settings.data_dir,
        settings.hold_out,
        settings.damaged_images,
        # Pictures that are put aside must not be among the repeated ones.
        settings.balance and not recipe.transfer,
    )


def _announce(settings, recipe):
    """Says what a training starts from, and warns of what is hardly wanted."""
    if recipe.transfer or recipe.published:
        smaller = None
        if recipe.transfer and settings.model == "resnet20_224":
            smaller = None if settings.previous else "resnet16_224"
        print(
            f"fine-tuning {settings.model} from its weights {settings.weights}"
            + (f" (--model={smaller} is smaller)" if smaller else ""),
            file=sys.stderr,
        )
    reason = recipes.recipe_warning(recipe, settings.dataset)
    if reason:
        console.warn(f"--recipe={settings.recipe}: {reason}")
    has_gpu = tf.config.list_physical_devices("GPU")
    if settings.precision == "mixed_float16" and not has_gpu:
        console.warn("CPUs compute slowly in float16: use --precision=mixed_bfloat16")


def _networks(settings, recipe, data, strategy):
    """Returns the network, which returns logits, its preprocessing and its teacher."""
    with (
        scopes.random_seed(settings.seed),
        scopes.dtype_policy(settings.precision),
        strategy.scope(),
    ):
        plain = _build(settings, recipe, data, activation=None)
        network = with_fused_norm(plain, any_size=recipe.train_size is not None)
        if recipe.stochastic_depth:
            network = with_stochastic_depth(network, recipe.stochastic_depth)
        if recipe.published:
            heads.freeze_normalization(network)
        size = (recipe.image_size, recipe.image_size)
        # Published weights want the normalization that they were trained with.
        preprocessing = getattr(plain, "preprocessing", None) or Preprocessing(size)
        if not recipe.transfer:
            preprocessing = dataclasses.replace(
                preprocessing,
                crop_fraction=recipe.crop_fraction,
                interpolation=recipe.interpolation,
            )
        if settings.task:
            # Nothing is cut off, and the input is filled, as MediaPipe does it.
            preprocessing = dataclasses.replace(preprocessing, resize="stretch")
        photographs = recipe.transfer or settings.task
        if photographs and VARIANTS[settings.model][0] is IMAGENET:
            preprocessing = dataclasses.replace(
                preprocessing, reduced_decoding=REDUCED_DECODING_OF_PHOTOGRAPHS
            )
        preprocessing = dataclasses.replace(preprocessing, input_size=size)
        if not settings.teacher:
            return network, preprocessing, None
        seen = loop.training_preprocessing(preprocessing, recipe)
        teacher = distillation.open_teacher(settings.teacher, data.labels, seen)
        return network, preprocessing, teacher


def _build(settings, recipe, data, activation):
    if settings.task:
        backbone = keras_resnet.create_model(
            settings.model,
            include_top=False,
            name=settings.network,
            width=settings.width or 1,
            weights=None if settings.previous else settings.weights,
            input_shape=(recipe.image_size, recipe.image_size, 3),
        )
        with_head = heads.detector if settings.task == "detect" else heads.segmenter
        model = with_head(backbone, len(data.labels), activation=activation)
        if settings.previous:
            going_on.take_over(model, settings.previous, data.labels)
        return model
    with warnings.catch_warnings():
        if recipe.transfer:  # it is no news that the classifier starts anew
            warnings.filterwarnings("ignore", "The classifier for")
        return keras_resnet.create_model(
            settings.model,
            name=settings.network,
            width=settings.width or 1,
            weights=settings.weights_file,
            input_shape=(recipe.image_size, recipe.image_size, 3),
            classes=len(data.labels),
            classifier_activation=activation,
            shortcut=recipe.shortcut,
        )


def _check_unknown(data, known_share, settings):
    """Raises `UserError` where `unknown` is asked for and cannot be."""
    if data.multi_label:
        if known_share is not None:
            raise UserError(
                "--known_share is for pictures with one label each: without any label, "
                "a picture of several is unknown already. Leave it out"
            )
    elif settings.known_share == 1 and data.has_unknown:
        raise UserError(
            f"--known_share=1 leaves the label {UNKNOWN!r} out, and there are pictures "
            f"of it, in {NOTHING!r} or a class of that name: pass a lower share, or "
            "remove or rename the folder"
        )
    elif settings.known_share not in (None, 1) and UNKNOWN in data.labels[:-1]:
        raise UserError(
            f"--known_share adds the label {UNKNOWN!r}, and a class of "
            f"{settings.data_dir or settings.dataset} has that name: call it "
            f"{NOTHING!r} if its pictures show nothing, or pass --known_share=1"
        )
