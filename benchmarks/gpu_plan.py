r"""Writes what benchmarks.gpu_pretrain needs, so that it trains without TensorFlow.

    python -m benchmarks.gpu_plan --output=runs/gpu --data_dir=DATA_DIR

benchmarks.gpu_pretrain calls it where its output folder has no plan yet. Settings,
recipes, learning rates and preprocessing are those of training/train.py. Writes

    OUTPUT/MODEL-DATASET/config.json   of each network, as training/train.py does
    OUTPUT/images.npz                  the images of both splits, raw pixels
    OUTPUT/plan.json                   order, teachers, and the rate of every step
    OUTPUT/teacher.keras               with --teacher

If the GPU is in another machine, call it here and copy the folder.
"""

import dataclasses
import inspect
import pathlib
import sys

import numpy as np
from absl import flags

from keras_resnet import console, files
from keras_resnet.commands import app
from keras_resnet.runner.errors import UserError

FLAGS = flags.FLAGS

# In the order of the training, and their epochs. ResNet-56 is the first, because it
# teaches the others. Then come the networks that devices run, and those of which no
# weights ship. The epochs are meant for 12 minutes on one H100, by an estimate of
# 45,000 images a second for ResNet-56: nobody has measured it.
NETWORKS = {
    "resnet56": 60,
    "resnet20": 100,
    "resnet8": 120,
    "resnet110": 50,
    "resnet44": 60,
    "resnet32": 70,
    "resnet14": 80,
}
# Batches of twice the recipe's size: half as many kernels to start in an epoch. The
# learning rate grows with them.
BATCH_FACTOR = 2
IMAGES, PLAN, TEACHER = "images.npz", "plan.json", "teacher.keras"


def define_flags():
    """Defines the flags of the command, and of benchmarks.gpu_pretrain."""
    flags.DEFINE_string("output", "runs/gpu", "Folder of the runs.")
    flags.DEFINE_string("dataset", "cifar10", "A dataset of 32x32 images.")
    flags.DEFINE_string("data_dir", None, "Folder of the dataset.")
    text = f"Names, in the order of the training; default: {','.join(NETWORKS)}."
    flags.DEFINE_list("networks", list(NETWORKS), text)
    text = "Epochs of every network; default: some number for each."
    flags.DEFINE_integer("epochs", None, text)
    flags.DEFINE_string(
        "teacher",
        None,
        "Who teaches all networks: the name of a model that ships with weights, the "
        "folder of a run or a .keras file of keras_resnet; none for nobody. Default: "
        "the first network teaches the others.",
    )


def main():
    """Plans as the flags say."""
    console.import_tensorflow()
    write(pathlib.Path(FLAGS.output), **wanted())


def wanted():
    """Returns the flags that a plan depends on."""
    names = ("dataset", "data_dir", "networks", "epochs", "teacher")
    return {name: FLAGS[name].value for name in names}


def write(output, dataset, data_dir, networks, epochs, teacher):
    """Writes the plan; the arguments are the values of the flags.

    Raises:
        UserError: there is no such network, dataset or teacher, or the teacher knows
            other classes.
    """
    from keras_resnet import training
    from keras_resnet.preprocessing import Preprocessing
    from keras_resnet.training import distillation, recipes, schedules
    from keras_resnet.training.data import batching, sources
    from keras_resnet.training.runs import folder as run_folder
    from keras_resnet.training.settings import Settings

    if unknown := [name for name in networks if name not in NETWORKS]:
        raise UserError(
            f"--networks must be some of {','.join(NETWORKS)}. Received: "
            f"{','.join(unknown)}"
        )
    data = sources.load(dataset, data_dir)
    preprocessing = Preprocessing((32, 32))
    recipe = recipes.RECIPES[recipes.default_name(dataset)]
    usual = inspect.signature(training.train).parameters
    fields = [field.name for field in dataclasses.fields(Settings)]
    plan = {
        "flags": {
            "dataset": dataset,
            "data_dir": data_dir,
            "networks": networks,
            "epochs": epochs,
            "teacher": teacher,
        },
        "share": distillation.SHARE,
        "temperature": distillation.TEMPERATURE,
        "networks": [],
    }
    taught_by = None
    if teacher not in (None, "none"):
        _save_teacher(teacher, data, output / TEACHER)
        taught_by = TEACHER
    for name in networks:
        settings = Settings(
            **{field: usual[field].default for field in fields}
            | dict(
                model=name,
                dataset=dataset,
                data_dir=data_dir,
                batch_size=BATCH_FACTOR * recipe.batch_size,
                epochs=epochs or NETWORKS[name],
                precision="mixed_bfloat16",
                teacher=taught_by and str(output / taught_by),
                evaluation_epochs=epochs or NETWORKS[name],
            )
        )
        completed = settings.completed_recipe()
        directory = output / f"{name}-{dataset}"
        run_folder.open_run(
            directory,
            directory / "model.keras",
            dataclasses.asdict(settings),
            completed,
            preprocessing,
            data,
        )
        steps = batching.steps_per_epoch(data, completed.batch_size)
        plan["networks"].append(
            {
                "folder": directory.name,
                "teacher": taught_by,
                "rates": schedules.learning_rates(completed, steps),
            }
        )
        if teacher is None and taught_by is None:
            taught_by = directory.name
    splits = {"train": data.train, "held_out": data.held_out}
    arrays = {}
    for split in splits:
        pairs = batching.images(splits[split], preprocessing).as_numpy_iterator()
        images, labels = map(np.stack, zip(*pairs, strict=True))
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    with files.replacing(output / IMAGES) as temporary:
        np.savez(temporary, **arrays)
    files.write_json(output / PLAN, plan)  # the last


def _save_teacher(name, data, path):
    """Writes the file of a teacher; raises `UserError` if it cannot teach."""
    import keras_resnet
    from keras_resnet.preprocessing import identifiers

    is_name = name in keras_resnet.list_models()
    model = (keras_resnet.create_model if is_name else keras_resnet.load)(name)
    if not hasattr(model, "preprocessing"):
        raise UserError(f"--teacher: no weights ship for {name}. Received: {name!r}")
    if identifiers(model.labels or ()) != list(data.labels):
        raise UserError(
            f"--teacher must know the classes of {data.name}, in their order. "
            f"Received: {name!r}"
        )
    if model.preprocessing.input_size != (32, 32):
        raise UserError(f"--teacher must take 32x32 images. Received: {name!r}")
    with files.replacing(path) as temporary:
        model.save(temporary)


if __name__ == "__main__":
    app.run(sys.modules[__name__])
