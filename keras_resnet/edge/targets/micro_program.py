"""A program for a microcontroller: the model as a C array, and an Arduino sketch.

The sketch classifies pictures that arrive over the serial port. What is special to a
board, such as its camera, is for the reader to add; everything about the model is in
the header, so the sketch stays as it is when the model changes, but for its operators.
"""

import dataclasses
import math
import string

from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.preprocessing import Preprocessing

ALIGNMENT = 16  # bytes; TFLM asks for it in the model and in the arena
HEADER, DATA = "model_data.h", "model_data.cpp"
_BYTES_IN_A_LINE = 16


@dataclasses.dataclass(frozen=True)
class Program:
    """What the files are made of."""

    name: str  # of the model
    content: bytes  # of the .tflite
    arena_bytes: int  # what the reference kernels of TFLM need, without the model
    methods: tuple  # names of the methods of MicroMutableOpResolver, as "AddConv2D"
    labels: list | None  # names of the classes
    preprocessing: Preprocessing  # what a picture must have gone through
    # In a model whose images may have several labels, the score that a label needs.
    threshold: float | None


def files(program, sketch):
    """Returns the files of a sketch of that name, {name of the file: text}."""
    return {
        HEADER: _header(program),
        DATA: _data(program),
        f"{sketch}.ino": _sketch(program),
    }


def _header(program):
    graph = tflite_graph.read(program.content)
    output = graph.outputs[0]
    steps, classes = program.preprocessing, output.shape[-1]
    height, width = steps.input_size
    several = ""
    if program.threshold is not None:
        several = (
            "// A picture has each label whose probability reaches this.\n"
            f"constexpr float kThreshold = {_float(program.threshold)};\n"
        )
    return _HEADER.substitute(
        name=_comment(program.name),
        model_bytes=len(program.content),
        alignment=ALIGNMENT,
        measured_bytes=program.arena_bytes,
        scratch_bytes=scratch_bytes(graph),
        height=height,
        width=width,
        resize=_text(steps.resize),
        crop_fraction=_float(steps.crop_fraction),
        interpolation=_text(steps.interpolation),
        antialias=str(steps.antialias).lower(),
        classes=classes,
        scale=_float(output.scales[0]),
        zero_point=int(output.zero_points[0]),
        several=several,
    )


def _data(program):
    classes = tflite_graph.read(program.content).outputs[0].shape[-1]
    labels = program.labels or map(str, range(classes))
    content = program.content
    rows = (
        content[start : start + _BYTES_IN_A_LINE]
        for start in range(0, len(content), _BYTES_IN_A_LINE)
    )
    return _DATA.substitute(
        header=HEADER,
        labels="\n".join(f"    {_text(label)}," for label in labels),
        model="\n".join("    " + "".join(f"{byte}," for byte in row) for row in rows),
    )


def _sketch(program):
    return _SKETCH.substitute(
        name=_comment(program.name),
        header=HEADER,
        methods="\n".join(f"  resolver.{method}();" for method in program.methods),
        method_count=len(program.methods),
        answer=_BEST if program.threshold is None else _SEVERAL,
    )


def scratch_bytes(graph):
    """Returns the memory that CMSIS-NN's int8 convolutions take besides the tensors.

    These kernels for Arm's Cortex-M unpack the inputs of two outputs to int16
    (`arm_convolve_s8_get_buffer_size`). The reference kernels need none.
    """
    sizes = [
        math.prod(operator.inputs[1].shape[1:])
        for operator in graph.operators
        if operator.name == "CONV_2D"
    ]
    return max((2 * 2 * 4 * math.ceil(size / 4) for size in sizes), default=0)


def _float(value):
    """Returns a C++ literal that is the same float32."""
    return f"{float(value)!r}f"


def _comment(text):
    """Returns a text that cannot end a comment, nor continue it on the next line."""
    return "".join(c if c.isprintable() and c != "\\" else "?" for c in text)


def _text(text):
    """Returns a C++ literal of a text in UTF-8.

    Every byte but plain ASCII is octal: such an escape ends after three digits.
    """
    plain = {*map(ord, string.ascii_letters + string.digits + " !#%&'()*+,-./:;<=>@_")}
    escaped = (chr(c) if c in plain else f"\\{c:03o}" for c in text.encode())
    return f'"{"".join(escaped)}"'


_HEADER = string.Template("""\
// $name for TensorFlow Lite for Microcontrollers. Written by keras_resnet.edge.export.
#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_

#include <cstddef>
#include <cstdint>

// The .tflite, which stays in flash.
constexpr std::size_t kModelBytes = $model_bytes;
extern const unsigned char kModel[kModelBytes];

// The memory that TFLM works in. Its reference kernels needed $measured_bytes bytes in
// a 64-bit process. CMSIS-NN, the kernels for Cortex-M, take up to $scratch_bytes bytes
// more in convolutions. If other kernels need more than both, AllocateTensors() fails.
constexpr std::size_t kAlignment = $alignment;
constexpr std::size_t kArenaBytes =
    ($measured_bytes + $scratch_bytes + kAlignment - 1) / kAlignment * kAlignment;

// The input: uint8 pixels, row by row, red, green and blue. The model normalizes them.
constexpr int kHeight = $height;
constexpr int kWidth = $width;
constexpr int kChannels = 3;
constexpr std::size_t kImageBytes = std::size_t{kHeight} * kWidth * kChannels;

// How the model's pictures were brought to that size; see keras_resnet.Preprocessing.
constexpr char kResize[] = $resize;
constexpr float kCropFraction = $crop_fraction;
constexpr char kInterpolation[] = $interpolation;
constexpr bool kAntialias = $antialias;

// The output: a uint8 score for each class.
// probability = kScoreScale * (score - kScoreZeroPoint)
constexpr int kClasses = $classes;
constexpr float kScoreScale = $scale;
constexpr int kScoreZeroPoint = $zero_point;
${several}\
extern const char* const kLabels[kClasses];

#endif  // MODEL_DATA_H_
""")

_DATA = string.Template("""\
#include "$header"

const char* const kLabels[kClasses] = {
$labels
};

alignas(kAlignment) const unsigned char kModel[kModelBytes] = {
$model
};
""")

_SKETCH = string.Template("""\
// $name on a microcontroller: classifies pictures that arrive over the serial port.
//
// For an Arduino Nano 33 BLE and others with enough memory. It needs the library
// github.com/tensorflow/tflite-micro-arduino-examples. Send kImageBytes raw pixels,
// and the board answers with label, probability and microseconds, with tabs between.

#include <TensorFlowLite.h>

#include "$header"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"

alignas(kAlignment) static uint8_t arena[kArenaBytes];
static tflite::MicroInterpreter* interpreter = nullptr;

static float probability(const TfLiteTensor* output, int index) {
  return kScoreScale * (output->data.uint8[index] - kScoreZeroPoint);
}

static void print(const TfLiteTensor* output, int index, unsigned long micros_taken) {
  Serial.print(kLabels[index]);
  Serial.print('\\t');
  Serial.print(probability(output, index), 4);
  Serial.print('\\t');
  Serial.println(micros_taken);
}

void setup() {
  Serial.begin(115200);
  while (!Serial) {
  }
  static tflite::MicroMutableOpResolver<$method_count> resolver;
$methods
  static tflite::MicroInterpreter built(tflite::GetModel(kModel), resolver, arena,
                                        kArenaBytes);
  if (built.AllocateTensors() != kTfLiteOk) {
    Serial.println("error: kArenaBytes is too small, or an operator is missing");
    return;
  }
  interpreter = &built;
}

void loop() {
  if (interpreter == nullptr) {
    return;
  }
  char* pixels = reinterpret_cast<char*>(interpreter->input(0)->data.uint8);
  if (Serial.readBytes(pixels, kImageBytes) != kImageBytes) {
    return;  // nothing came for a second
  }
  const unsigned long started = micros();
  if (interpreter->Invoke() != kTfLiteOk) {
    Serial.println("error: the inference failed");
    return;
  }
  const unsigned long taken = micros() - started;
  const TfLiteTensor* output = interpreter->output(0);
${answer}\
}
""")

_BEST = """\
  int best = 0;
  for (int index = 1; index < kClasses; ++index) {
    if (output->data.uint8[index] > output->data.uint8[best]) {
      best = index;
    }
  }
  print(output, best, taken);
"""

_SEVERAL = """\
  for (int index = 0; index < kClasses; ++index) {
    if (probability(output, index) >= kThreshold) {
      print(output, index, taken);
    }
  }
  Serial.println();  // the end of the answer
"""
