"""What the user chose for a training, checked and completed."""

import dataclasses
import functools

import keras_resnet
from keras_resnet.models import VARIANTS, checked_width
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.learning import KNOWN_SHARE
from keras_resnet.training import checks, recipes
from keras_resnet.training.data import by_task
from keras_resnet.training.data.scenes import scene_dataset
from keras_resnet.training.data.scenes import sources as scene_sources
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.transfer.previous import Previous
from keras_resnet.weights import registry

TASKS = (by_task.CLASSIFY, *scene_dataset.TASKS)
STRATEGIES = ("one_device", "mirrored", "multi_worker", "tpu")
PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DAMAGED_IMAGES = ("stop", "skip")
FREEZABLE = ("backbone",)
# What --weights says for a random initialization.
RANDOM = "none"
# The least values of the settings that are whole numbers. The second group may be
# None: the recipe or the dataset then decides.
_WHOLE_NUMBERS = {"cpu_replicas": 0, "evaluation_epochs": 1, "seed": 0}
_OPTIONAL_NUMBERS = {"hold_out": 1, "batch_size": 1, "epochs": 1, "image_size": 32}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings that decide the result of a training; see `experiment.train`.

    Paths become absolute, so that a run can be continued from any folder.

    Raises:
        UserError: a setting has a wrong type or value.
    """

    model: str
    width: float | None
    dataset: str
    task: str | None
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
    balance: bool | None
    freeze: str | None
    known_share: float | None
    evaluation_epochs: int
    seed: int

    def __post_init__(self):
        """Checks every setting and completes those that depend on others."""
        models = keras_resnet.list_models()
        task = checks.choice("task", self.task or by_task.CLASSIFY, TASKS)
        # None like the runs of versions that did not have it; see `run_folder.task_of`.
        self._set("task", None if task == by_task.CLASSIFY else task)
        if self.dataset is None:
            self._set("dataset", "digit_scenes" if self.task else "digits")
        if not isinstance(self.dataset, str):
            raise UserError(f"--dataset must be a name. Received: {self.dataset!r}")
        self._take_over_network(task)
        checks.choice("model", self.model, models)
        width = checked_width(self.width, "--width")
        # None like the runs of versions that did not have it.
        self._set("width", None if width == 1 else width)
        usual = recipes.default_name(self.dataset, self.weights, task)
        self._set("recipe", self.recipe or usual)
        checks.choice("recipe", self.recipe, recipes.RECIPES)
        self._check_task(task)
        checks.choice("strategy", self.strategy, STRATEGIES)
        checks.choice("precision", self.precision, PRECISIONS)
        if self.damaged_images is not None:
            checks.choice("damaged_images", self.damaged_images, DAMAGED_IMAGES)
        self._set("balance", bool(self.balance) or None)
        for name, least in _WHOLE_NUMBERS.items():
            self._set(name, checks.whole_number(name, getattr(self, name), least))
        for name, least in _OPTIONAL_NUMBERS.items():
            value = getattr(self, name)
            if value is not None:
                self._set(name, checks.whole_number(name, value, least))
        if self.learning_rate is not None:
            rate = checks.positive_number("learning_rate", self.learning_rate)
            self._set("learning_rate", rate)
        self._set("data_dir", absolute("data_dir", self.data_dir))
        self._choose_weights()
        self._choose_known_share()
        is_path = self.weights and checks.path("weights", self.weights).is_file()
        if is_path or self.previous:
            self._set("weights", absolute("weights", self.weights))
        if self.teacher and self.teacher not in models:
            self._set("teacher", absolute("teacher", self.teacher))

    def _set(self, name, value):
        object.__setattr__(self, name, value)

    def _take_over_network(self, task):
        """A run that goes on from another has its network."""
        usual, width = recipes.default_model(self.dataset, task), self.width
        if self.previous:
            usual = self.previous.settings["model"]
            width = self.previous.settings.get("width") or 1
            if self.model not in (None, usual) or self.width not in (1, width):
                name = network_name(usual, None if width == 1 else width)
                raise UserError(
                    f"--weights is a run of {name}: leave "
                    f"--model and --width out. Received: --model={self.model}, "
                    f"--width={self.width}"
                )
        self._set("model", self.model or usual)
        self._set("width", width)

    def _check_task(self, task):
        """Raises `UserError` if something else is for another task."""
        recipe = recipes.RECIPES[self.recipe]
        if recipe.task != task:
            raise UserError(
                f"--recipe={self.recipe} is for --task={recipe.task}. Received: "
                f"--task={task}"
            )
        before = self.previous and run_folder.task_of(self.previous.settings)
        if before not in (None, task):
            raise UserError(
                f"--weights is a run of --task={before}, and one goes on "
                f"with the same task. Received: --task={task}"
            )
        if task == by_task.CLASSIFY:
            if self.dataset in ("digit_scenes", *scene_sources.OWN_PICTURES):
                raise UserError(
                    f"--dataset={self.dataset} has boxes or masks: it needs "
                    "--task=detect or --task=segment"
                )
            return
        scene_sources.check_task(self.dataset, task)
        for name in ("teacher", "balance", "freeze"):
            if getattr(self, name):
                raise UserError(
                    f"--{name} is for --task=classify. Received: --task={task}"
                )

    def _choose_weights(self):
        """Fine-tuning starts from published weights, other recipes from random ones."""
        transfer = recipes.RECIPES[self.recipe].transfer
        if self.freeze is not None:
            checks.choice("freeze", self.freeze, FREEZABLE)
            if not transfer:
                raise UserError(
                    "--freeze=backbone needs --recipe=finetune. Received: "
                    f"--recipe={self.recipe}"
                )
        if transfer and self.strategy == "multi_worker":
            raise UserError(
                "--recipe=finetune is for one machine: --strategy=mirrored uses all "
                "its devices. Received: --strategy=multi_worker"
            )
        if transfer and self.weights == RANDOM:
            raise UserError(
                "--recipe=finetune starts from published weights. Received: "
                f"--weights={RANDOM}; --recipe=imagenet trains from random ones"
            )
        published = recipes.RECIPES[self.recipe].published
        if (transfer or published) and self.weights is None:
            if self.width:
                raise UserError(
                    "published weights are for --width=1: train from random ones with "
                    f"--weights={RANDOM}, or name a file of such a network by "
                    f"--weights=FILE. Received: --width={self.width:g}"
                )
            published = registry.default(self.model)
            if published is None:
                raise UserError(
                    f"--recipe={self.recipe} starts from published weights, and there "
                    f"are none for --model={self.model}: name a file by --weights="
                    f"FILE, or train from random ones with --weights={RANDOM}"
                )
            self._set("weights", published.tag)
        elif self.weights == RANDOM:
            self._set("weights", None)

    @functools.cached_property
    def previous(self):
        """The `Previous` run that `weights` names, or None if it names none."""
        if self.weights is None or not run_folder.is_run(
            checks.path("weights", self.weights)
        ):
            return None
        return Previous.open(self.weights)

    @property
    def weights_file(self):
        """What `weights` is for `keras_resnet.create_model`."""
        return self.previous.file if self.previous else self.weights

    def _choose_known_share(self):
        """The label `unknown` comes from the features of published weights."""
        transfer = recipes.RECIPES[self.recipe].transfer
        if self.known_share is None:
            self._set("known_share", KNOWN_SHARE if transfer else None)
        elif transfer:
            share = checks.positive_number("known_share", self.known_share, most=1)
            self._set("known_share", share)
        else:
            raise UserError(
                "--known_share needs --recipe=finetune. Received: "
                f"--recipe={self.recipe}"
            )

    @property
    def network(self):
        """The name of the network, as `network_name` has it."""
        return network_name(self.model, self.width)

    def completed_recipe(self):
        """Returns the chosen recipe with the settings that override it."""
        recipe = recipes.RECIPES[self.recipe]
        if recipe.published and self.weights is None:
            recipe = dataclasses.replace(recipe, published=False)
        if recipe.transfer or self.task:
            size = recipe.image_size
            if recipe.transfer:
                size = VARIANTS[self.model][0].image_size
            if self.previous:
                size = self.previous.run.preprocessing.input_size[0]
            recipe = dataclasses.replace(recipe, image_size=size)
        batch_size = self.batch_size or recipe.batch_size
        return dataclasses.replace(
            recipes.with_epochs(recipe, self.epochs or recipe.epochs),
            batch_size=batch_size,
            learning_rate=self.learning_rate or recipe.scaled_rate(batch_size),
            image_size=self.image_size or recipe.image_size,
            train_size=None if self.image_size else recipe.train_size,
        )


def network_name(model, width=None):
    """Returns the name of a model of a width: "resnet20", "resnet20_width0.25"."""
    return f"{model}_width{width:g}" if width else model


def absolute(flag, value):
    """Returns a path of the user as an absolute one, as text; None stays None."""
    return str(checks.path(flag, value).resolve()) if value else None
