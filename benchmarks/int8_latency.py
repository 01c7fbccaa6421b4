"""int8 ResNet-50: ours beside keras.applications' by the plain recipe, on the CPU.

    python -m benchmarks.int8_latency

The plain recipe is that of TensorFlow's guide: TFLiteConverter with a representative
dataset, integer operators, uint8 in and out. Its host prepares the pixels as
`preprocess_input` does and quantizes them; ours feeds them as they are. Random weights
and pixels: they change no operator. Rounds alternate; ratios are medians of rounds.
"""

import argparse
import os
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import keras_resnet
from benchmarks import turns
from keras_resnet import console
from keras_resnet.edge.convert import converter as conversion
from keras_resnet.preprocessing import Preprocessing
from keras_resnet.rewrite import fold_normalization

SHAPE = (224, 224, 3)


def ours(images):
    """Returns the bytes that edge/export.py writes, and the float32 file's."""
    model = keras_resnet.ResNet50(weights=None)
    model, preprocessing, _ = fold_normalization(model, Preprocessing(SHAPE[:2]))
    return [
        conversion.from_keras(model, preprocessing, quantization, images)
        for quantization in ("int8", "none")
    ]


def plain(images):
    """Returns the bytes of the plain recipe."""
    model = keras.applications.ResNet50(weights=None)
    with tempfile.TemporaryDirectory() as folder, console.hidden_output(1, 2):
        model.export(folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.representative_dataset = lambda: ([_caffe(x)[None]] for x in images)
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.uint8
        return converter.convert()


def _caffe(pixels):
    return keras.applications.resnet50.preprocess_input(pixels.astype("float32"))


class Runner:
    """A file in the runtime, and what its host does before."""

    def __init__(self, content, prepare, threads):
        """Loads it; `prepare` takes pixels and the input's (scale, zero point)."""
        self._interpreter = Interpreter(model_content=content, num_threads=threads)
        given = self._interpreter.get_input_details()[0]
        if given["shape"][0] != 1:  # the plain recipe's batch
            self._interpreter.resize_tensor_input(given["index"], (1, *SHAPE))
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._prepare = prepare

    def times(self, pixels):
        """Returns seconds of the invocation, and from pixels to scores."""
        started = time.perf_counter()
        tensor = self._prepare(pixels, *self._input["quantization"])
        self._interpreter.set_tensor(self._input["index"], tensor[None])
        ready = time.perf_counter()
        self._interpreter.invoke()
        done = time.perf_counter()
        self._interpreter.get_tensor(self._output)
        return done - ready, time.perf_counter() - started


def main():
    """Prints the times and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=31)
    arguments = parser.parse_args()
    images = np.random.default_rng(0).integers(0, 256, (4, *SHAPE), np.uint8)
    content, in_float = ours(images)

    def quantized(pixels, scale, zero_point):
        levels = np.round(_caffe(pixels) / scale + zero_point)
        return np.clip(levels, 0, 255).astype(np.uint8)

    runners = {
        "ours": Runner(content, lambda pixels, *_: pixels, arguments.threads),
        "plain": Runner(plain(images), quantized, arguments.threads),
    }
    found = turns.in_turns(
        lambda runner: runner.times(images[0]), runners, arguments.rounds, warm_up=3
    )
    for index, what in enumerate(("invoke", "pixels to scores")):
        seconds = [[pair[index] for pair in pairs] for pairs in found.values()]
        ours_, plain_ = (1000 * statistics.median(times) for times in seconds)
        print(
            f"{what:<17} ours {ours_:.2f} ms, plain {plain_:.2f} ms: "
            f"{turns.ratio(*seconds):.3f}x"
        )
    print(
        f"file              {len(content):,} bytes: "
        f"{len(content) / len(in_float):.3f}x of float32"
    )


if __name__ == "__main__":
    main()
