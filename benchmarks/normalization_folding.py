"""Normalization in the first convolution, beside two operators in front of it.

    python -m benchmarks.normalization_folding --data_dir=DIR

The shipped ResNet-8, re-expressed for the normalization of torchvision, which no 8-bit
scale and zero point express. "folded" is what edge/export.py does: no operator more,
but the convolution pads with the common mean. "two operators" is a multiplication and
an addition by channel on the device, which keeps the border exact. Both are compared
with the float model on test images of CIFAR-10, in float (what the border alone costs)
and in int8. Latencies are medians of alternating rounds of the int8 files, one thread.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
from benchmarks import int8_latency
from keras_resnet import console

ROOT = pathlib.Path(__file__).resolve().parents[1]


def reexpressed(normalization):
    """Returns the shipped ResNet-8 for another normalization, and what it expects.

    Args:
        normalization: fields of a `Preprocessing`, in RGB order.

    Returns:
        (`keras.Model`, `Preprocessing`), as accurate as it is but for the border, which
        is now that of the new normalization.
    """
    import numpy as np

    import keras_resnet

    model = keras_resnet.ResNet8()
    preprocessing = dataclasses.replace(model.preprocessing, **normalization)
    old_mean, new_mean, old_std, new_std = (
        np.float64(getattr(which, name))
        for name in ("mean_rgb_255", "std_rgb_255")
        for which in (model.preprocessing, preprocessing)
    )
    conv, norm = model.get_layer("conv1_conv"), model.get_layer("conv1_bn")
    kernel = np.float64(conv.kernel)
    shift = np.einsum("hwco,c->o", kernel, (new_mean - old_mean) / old_std)
    conv.kernel.assign(kernel * (new_std / old_std)[:, None])
    norm.moving_mean.assign(np.float64(norm.moving_mean) - shift)
    return model, preprocessing


def with_two_operators(model, preprocessing):
    """Returns a pair as `fold_normalization` does, with the operators in the graph."""
    import keras
    import numpy as np

    mean, std = (np.float64(preprocessing.mean_rgb_255), preprocessing.std_rgb_255)
    common_mean, common_std = float(round(mean.mean())), float(np.mean(std))
    inputs = keras.Input(model.input_shape[1:])
    normalized = keras.layers.Rescaling(
        list(common_std / np.float64(std)), list((common_mean - mean) / std)
    )(inputs)
    return keras.Model(inputs, model(normalized), name=model.name), dataclasses.replace(
        preprocessing, mean_rgb_255=(common_mean,) * 3, std_rgb_255=(common_std,) * 3
    )


def main():
    """Prints a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", required=True, help="Where CIFAR-10 lies.")
    parser.add_argument("--examples", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=2001)
    arguments = parser.parse_args()
    console.import_tensorflow()

    from keras_resnet.deploy import fold_normalization
    from keras_resnet.edge.convert import converter as conversion
    from keras_resnet.edge.report.comparison import Comparison
    from keras_resnet.preprocessing import NORMALIZATIONS
    from keras_resnet.training.data import batching, sources

    dataset = sources.load("cifar10", arguments.data_dir)
    model, preprocessing = reexpressed(NORMALIZATIONS["torch"])
    comparison = Comparison(model, preprocessing, dataset, arguments.examples)
    images = batching.calibration_images(dataset, preprocessing, 500)
    ways = {
        "folded": fold_normalization(model, preprocessing),
        "two operators": with_two_operators(model, preprocessing),
    }
    found, runners = {}, {}
    for name, pair in ways.items():
        for quantization in ("none", "int8"):
            content = conversion.from_keras(*pair, quantization, images)
            found[name, quantization] = comparison.scores(content)
        runners[name] = int8_latency.Runner(content, lambda pixels, *_: pixels, 1)
    seconds = {name: [] for name in runners}
    for number in range(arguments.rounds):
        for name, runner in runners.items():
            seconds[name].append(runner.times(images[number % len(images)])[0])
    print(
        "| way | file | top-1 | same class as float | max, mean difference | int8, ms |"
        "\n|---|---|---|---|---|---|"
    )
    for (name, quantization), row in found.items():
        milliseconds = 1000 * statistics.median(seconds[name])
        print(
            f"| {name} | {'float' if quantization == 'none' else quantization} "
            f"| {row['top1']:.2%} (Keras {row['keras_top1']:.2%}) "
            f"| {row['agreement']:.2%} "
            f"| {row['max_difference']:.4f}, {row['mean_difference']:.5f} "
            f"| {milliseconds:.3f} |"
        )


if __name__ == "__main__":
    main()
