r"""Training steps: ours, Keras as it is on each backend, and PyTorch, side by side.

    python -m benchmarks.train_step
    python -m benchmarks.train_step --precision=mixed_bfloat16
    python -m benchmarks.train_step --model=resnet50 --batch_size=16
    python -m benchmarks.train_step --contenders=ours,ours_mirrored
    python -m benchmarks.train_step --finetune --model=resnet20_224 --batch_size=16 \
        --contenders=ours,pytorch --rounds=8
    python -m benchmarks.train_step --contenders=keras_jax,pytorch   # no TensorFlow

`ours` is the step of training/train.py, `keras` the same model under plain `fit`,
`applications` that of keras.applications. Each runs in a process of its own, on the
accelerator that its library finds, and needs no other library; one measures while the
others wait, in turns. The images are random, and lie in memory. Ratios are medians of
the rounds' ratios, and those of the best rounds: other work on the machine does not
slow all down alike. With --finetune, the step is that of all layers in the recipe
finetune: AdamW, and the statistics of batch normalization are frozen.
"""

import argparse
import contextlib
import dataclasses
import functools
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

from benchmarks import turns

RATE = 0.01  # learning rate
# Who can learn with frozen statistics: `fit` of Keras cannot.
FINE_TUNERS = ("ours", "ours_mirrored", "pytorch")


@dataclasses.dataclass(frozen=True)
class Task:
    """What all contenders do."""

    model: str
    precision: str
    images: np.ndarray  # float32 (batch, size, size, 3)
    targets: np.ndarray  # one-hot, float32 (batch, classes)
    finetune: bool  # whether with AdamW and frozen statistics


# --- Contenders: Task -> (number of parameters, function that makes n steps) -----


def ours(task, **strategy):
    """The step of training/train.py, with a strategy's arguments."""
    import keras
    import tensorflow as tf

    from keras_resnet.training import optimizers, recipes
    from keras_resnet.training.distribute import strategies
    from keras_resnet.training.fused_norm import with_fused_norm
    from keras_resnet.training.steps import SUMS, step_function

    strategy = strategies.create(**strategy)
    name = "finetune" if task.finetune else recipes.default_name("cifar10")
    recipe = dataclasses.replace(recipes.RECIPES[name], batch_size=len(task.images))
    rate = recipe.learning_rate if task.finetune else RATE
    with strategy.scope():
        model = with_fused_norm(_zoo(task, classifier_activation=None))
        optimizer = optimizers.create(keras, model, recipe, [rate])
        totals = tf.Variable(tf.zeros(SUMS, tf.float64))
    run_steps = step_function(
        model, optimizer, recipe, strategy, totals, from_logits=True
    )
    share = len(task.images) // strategy.num_replicas_in_sync
    batches = iter(
        strategy.distribute_datasets_from_function(
            lambda context: tf.data.Dataset.from_tensors(
                (task.images[:share], task.targets[:share])
            ).repeat()
        )
    )

    def run(steps):
        run_steps(batches, tf.constant(steps))
        totals.numpy()  # waits for the device

    return _parameters(model), run


def keras_fit(task):
    """The model of the zoo under plain `fit`."""
    return _fit(task, _zoo(task))


def applications(task):
    """The model of keras.applications under plain `fit`."""
    import keras

    keras.config.set_dtype_policy(task.precision)
    name = task.model.replace("resnet", "ResNet")
    build = getattr(keras.applications, name, None)
    if build is None:
        raise ValueError(f"keras.applications has no {name}")
    return _fit(task, build(weights=None, **_sizes(task)))


def _zoo(task, **options):
    import keras

    import keras_resnet

    keras.config.set_dtype_policy(task.precision)
    return keras_resnet.create_model(
        task.model, weights=None, **_sizes(task), **options
    )


def _sizes(task):
    return {"input_shape": task.images.shape[1:], "classes": task.targets.shape[1]}


def _parameters(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


def _fit(task, model):
    import keras

    # Keras chooses XLA where its backend offers it, as for anybody.
    model.compile(
        keras.optimizers.SGD(RATE, momentum=0.9, weight_decay=1e-4),
        "categorical_crossentropy",
        metrics=["accuracy"],
    )

    def run(steps):
        model.fit(
            np.concatenate([task.images] * steps),
            np.concatenate([task.targets] * steps),
            batch_size=len(task.images),
            shuffle=False,
            verbose=0,
        )

    return _parameters(model), run


def pytorch(task):
    """Channels last, autocast for bfloat16: the fastest of eager PyTorch."""
    import torch
    from torch import nn

    import keras_resnet.models
    from tests.helpers import torch_resnet

    family, block, counts = keras_resnet.models.VARIANTS[task.model]
    classes = task.targets.shape[1]
    if family is keras_resnet.models.IMAGENET:
        net = torch_resnet.TorchResNet(
            counts, classes, block is keras_resnet.models.BOTTLENECK, "1x1"
        )
    else:
        layers, channels = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)], 16
        layers += [nn.BatchNorm2d(16), nn.ReLU()]
        for stage, count in enumerate(counts):
            for index in range(count):
                filters, stride = 16 * 2**stage, 2 if stage and not index else 1
                layers.append(
                    torch_resnet.Block(channels, filters, stride, False, "3x3")
                )
                channels = filters
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        net = nn.Sequential(*layers, nn.Linear(channels, classes))

    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = net.to(device, memory_format=torch.channels_last).train()
    images = torch.from_numpy(task.images.transpose(0, 3, 1, 2)).to(device)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.from_numpy(task.targets.argmax(-1)).to(device)
    if task.finetune:
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    else:
        optimizer = torch.optim.SGD(net.parameters(), RATE, 0.9, weight_decay=1e-4)
    bfloat16 = task.precision == "mixed_bfloat16"

    def run(steps):
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=bfloat16):
                loss = nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        loss.item()  # waits for the device

    return sum(value.numel() for value in net.parameters()), run


# Two replicas on the CPU share the batch.
ours_mirrored = functools.partial(ours, name="mirrored", cpu_replicas=2)
# name: (backend of Keras, function of the task)
CONTENDERS = {
    "ours": ("tensorflow", functools.partial(ours, name="one_device")),
    "ours_mirrored": ("tensorflow", ours_mirrored),
    "keras": ("tensorflow", keras_fit),
    "applications": ("tensorflow", applications),
    "keras_jax": ("jax", keras_fit),
    "keras_torch": ("torch", keras_fit),
    "pytorch": ("torch", pytorch),
}


# --- A process for each ----------------------------------------------------------


def contend(arguments):
    """Runs as one contender: answers numbers of steps with seconds."""
    # What libraries print must not mix with the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    backend, make = CONTENDERS[arguments.contend]
    os.environ["KERAS_BACKEND"] = backend
    # Several processes share an accelerator.
    os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"

    from keras_resnet.models import VARIANTS

    family = VARIANTS[arguments.model][0]
    size = family.image_size
    rng = np.random.default_rng(0)
    images = rng.normal(size=(arguments.batch_size, size, size, 3))
    labels = rng.integers(0, family.classes, arguments.batch_size)
    task = Task(
        arguments.model,
        arguments.precision,
        images.astype(np.float32),
        np.eye(family.classes, dtype=np.float32)[labels],
        arguments.finetune,
    )
    parameters, run = make(task)
    run(1)
    run(2)
    print(parameters, file=answers)
    for line in sys.stdin:
        started = time.perf_counter()
        run(int(line))
        print(time.perf_counter() - started, file=answers)


class Contender:
    """The process of one contender."""

    def __init__(self, name):
        """Starts it."""
        self.name = name
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, *sys.argv[1:], f"--contend={name}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def answer(self):
        """Returns the next number it says; raises `ChildProcessError` if it ended."""
        line = self._process.stdout.readline()
        if line:
            return float(line)
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        raise ChildProcessError(
            lines[-1] if lines else f"exit code {self._process.returncode}"
        )

    def measure(self, steps):
        """Returns the seconds that it takes for some steps."""
        print(steps, file=self._process.stdin, flush=True)
        return self.answer()

    def stop(self):
        """Ends it."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()


def main():
    """Prints images a second of each contender, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet20", metavar="NAME")
    parser.add_argument("--batch_size", type=int, default=128)
    precisions = ["float32", "mixed_bfloat16"]
    parser.add_argument("--precision", default="float32", choices=precisions)
    text = f"AdamW and frozen statistics; only {', '.join(FINE_TUNERS)}"
    parser.add_argument("--finetune", action="store_true", help=text)
    text = f"some of {','.join(CONTENDERS)}; the ratios are to the first"
    parser.add_argument("--contenders", default="ours,keras,pytorch", help=text)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5, help="steps in a round")
    parser.add_argument("--contend", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contend:
        return contend(arguments)
    names = arguments.contenders.split(",")
    if unknown := set(names) - set(CONTENDERS):
        parser.error(f"--contenders: no {', '.join(sorted(unknown))}")
    if arguments.finetune and (others := set(names) - set(FINE_TUNERS)):
        parser.error(
            f"--finetune needs --contenders among {','.join(FINE_TUNERS)}. Received: "
            f"{','.join(sorted(others))}"
        )

    with contextlib.ExitStack() as stack:
        running = {}
        for name in names:
            contender = Contender(name)
            stack.callback(contender.stop)
            try:
                print(f"{name:<14} {contender.answer():,.0f} parameters")
                running[name] = contender
            except ChildProcessError as error:
                print(f"{name:<14} cannot run here: {error}")
        images = arguments.steps * arguments.batch_size
        rates = turns.in_turns(
            lambda contender: images / contender.measure(arguments.steps),
            running,
            arguments.rounds,
        )
    for name, found in rates.items():
        first = next(iter(rates.values()))
        ratios = [one / other for one, other in zip(first, found, strict=True)]
        print(
            f"{name:<14} {statistics.median(found):8.1f} images/s; "
            f"{next(iter(rates))} is {statistics.median(ratios):.2f}x "
            f"({min(ratios):.2f} to {max(ratios):.2f}), "
            f"{max(first) / max(found):.2f}x by the best rounds"
        )


if __name__ == "__main__":
    main()
