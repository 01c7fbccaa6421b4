"""The sketch for a microcontroller, compiled on this machine and run.

Arduino and TFLM are replaced by stand-ins: an interpreter that copies the first pixels
into the scores. The real interpreter is in `test_tflite_micro.py`.
"""

import shutil
import subprocess

import numpy as np
import pytest

from keras_resnet.edge.inspect import graph as tflite_graph
from keras_resnet.edge.targets import micro_program, tflite_micro
from keras_resnet.preprocessing import Preprocessing
from tests.helpers import graphs
from tests.helpers.commands import ROOT

LABELS = ['say "hi"\\n', "Größe 7", "??/ 🐘 1"]
ARDUINO = r"""
#include <cstdint>
#include <cstdio>
#include <cstdlib>
struct {
  void begin(long) {}
  explicit operator bool() const { return true; }
  std::size_t readBytes(char* to, std::size_t count) {
    std::size_t read = std::fread(to, 1, count, stdin);
    if (read == 0) std::exit(0);
    return read;
  }
  void print(const char* text) { std::fputs(text, stdout); }
  void print(char letter) { std::putchar(letter); }
  void print(double number, int digits) { std::printf("%.*f", digits, number); }
  void println() { std::putchar('\n'); }
  void println(const char* text) { std::puts(text); }
  void println(unsigned long number) { std::printf("%lu\n", number); }
} Serial;
unsigned long micros() { return 0; }
"""
TFLM = r"""
#include <cstdint>
#include <cstring>
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
struct TfLiteTensor { union { std::uint8_t* uint8; } data; };
namespace tflite {
struct Model {};
inline const Model* GetModel(const void* data) {
  return static_cast<const Model*>(data);
}
template <unsigned count> struct MicroMutableOpResolver {
  unsigned added = 0;
%s
};
struct MicroInterpreter {
  template <unsigned count>
  MicroInterpreter(const Model* model, const MicroMutableOpResolver<count>& resolver,
                   std::uint8_t* arena, std::size_t size)
      : good(resolver.added == count && size >= 4000 && aligned(model) &&
             aligned(arena)) {
    in.data.uint8 = arena;
    out.data.uint8 = arena + 3000;
  }
  static bool aligned(const void* at) {
    return reinterpret_cast<std::uintptr_t>(at) %% 16 == 0;
  }
  TfLiteStatus AllocateTensors() { return good ? kTfLiteOk : kTfLiteError; }
  TfLiteStatus Invoke() {
    std::memcpy(out.data.uint8, in.data.uint8, 3);
    return kTfLiteOk;
  }
  TfLiteTensor* input(int) { return &in; }
  TfLiteTensor* output(int) { return &out; }
  TfLiteTensor in, out;
  bool good;
};
}
"""
MAIN = r"""
#include <cstdio>
#include "model_data.h"
void setup();
void loop();
int main(int count, char**) {
  if (count > 1) return std::fwrite(kModel, 1, kModelBytes, stdout) != kModelBytes;
  setup();
  for (int turn = 0; turn < 100; ++turn) loop();
}
"""
METHODS = "\n".join(
    f"  TfLiteStatus {method}() {{ ++added; return kTfLiteOk; }}"
    for method in sorted(set(tflite_micro.OPERATORS.values()))
)

needs_compiler = pytest.mark.skipif(
    shutil.which("g++") is None, reason="needs g++: apt-get install g++"
)


def build(folder, content, **about):
    """Writes the sketch with its stand-ins, compiles it; returns the program's path."""
    about = (
        dict(
            name="tiny",
            arena_bytes=4000,
            labels=LABELS,
            preprocessing=Preprocessing((8, 8)),
            threshold=None,
        )
        | about
    )
    for name, text in tflite_micro.program(content, "tiny_sketch", **about).items():
        (folder / name).write_text(text, encoding="utf-8")
    lite = folder / "tensorflow/lite"
    for name in ("micro_interpreter.h", "micro_mutable_op_resolver.h"):
        (lite / "micro").mkdir(parents=True, exist_ok=True)
        (lite / "micro" / name).write_text("#pragma once\n")
    (lite / "schema").mkdir()
    (lite / "schema/schema_generated.h").write_text("#pragma once\n")
    (folder / "TensorFlowLite.h").write_text(f"#pragma once\n{TFLM % METHODS}")
    (folder / "Arduino.h").write_text(f"#pragma once\n{ARDUINO}")
    (folder / "main.cpp").write_text(MAIN)
    # What Arduino's builder does with a sketch.
    sketch = (folder / "tiny_sketch.ino").read_text(encoding="utf-8")
    (folder / "sketch.cpp").write_text(f'#include "Arduino.h"\n{sketch}', "utf-8")
    strict = ("-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I.")
    done = subprocess.run(
        ["g++", *strict, "-o", "tiny", "sketch.cpp", "model_data.cpp", "main.cpp"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "tiny"


def answers(program, images):
    done = subprocess.run([program], input=images.tobytes(), capture_output=True)
    assert done.returncode == 0
    return done.stdout.decode().splitlines()


def images_of(*pixels):
    """Returns images (8, 8, 3) whose first pixels become the scores."""
    images = np.zeros((len(pixels), 8, 8, 3), np.uint8)
    images[:, 0, 0] = pixels
    return images


@needs_compiler
def test_the_sketch_answers_each_picture_with_the_best_label(tmp_path):
    program = build(tmp_path, graphs.mean_colour())
    found = answers(program, images_of((9, 3, 5), (0, 255, 254), (64, 64, 128)))
    assert found == [
        f"{LABELS[0]}\t0.0352\t0",
        f"{LABELS[1]}\t0.9961\t0",
        f"{LABELS[2]}\t0.5000\t0",
    ]


@needs_compiler
def test_the_sketch_lists_every_label_above_the_threshold(tmp_path):
    program = build(tmp_path, graphs.mean_colour(), threshold=0.5, labels=None)
    found = answers(program, images_of((128, 127, 200), (1, 2, 3)))
    assert found == ["0\t0.5000\t0", "2\t0.7812\t0", "", ""]


@needs_compiler
def test_the_array_is_the_file(tmp_path):
    content = (ROOT / "models/resnet8.cifar10.int8.tflite").read_bytes()
    program = build(tmp_path, content, labels=None)
    done = subprocess.run([program, "model"], capture_output=True)
    assert done.returncode == 0 and done.stdout == content


@needs_compiler
def test_an_arena_that_is_too_small_is_said_over_the_serial_port(tmp_path):
    program = build(tmp_path, graphs.mean_colour(), arena_bytes=3000)
    (line,) = answers(program, images_of((9, 3, 5)))
    assert line == "error: kArenaBytes is too small, or an operator is missing"


def test_the_header_says_how_pictures_are_prepared():
    preprocessing = Preprocessing(
        (8, 8), resize="stretch", interpolation="bicubic", antialias=False
    )
    program = tflite_micro.program(
        graphs.mean_colour(),
        "s",
        4001,
        name="a\nb\\",
        labels=LABELS,
        preprocessing=preprocessing,
        threshold=None,
    )
    header = program["model_data.h"]
    for line in (
        "// a?b? for TensorFlow Lite for Microcontrollers.",
        "constexpr std::size_t kAlignment = 16;",
        "    (4001 + 0 + kAlignment - 1) / kAlignment * kAlignment;",
        "constexpr int kHeight = 8;",
        'constexpr char kResize[] = "stretch";',
        'constexpr char kInterpolation[] = "bicubic";',
        "constexpr bool kAntialias = false;",
        "constexpr float kScoreScale = 0.00390625f;",
    ):
        assert line in header
    assert "kThreshold" not in header


def test_scratch_memory_is_that_of_the_largest_convolution():
    graph = tflite_graph.read(
        (ROOT / "models/resnet8.cifar10.int8.tflite").read_bytes()
    )
    assert micro_program.scratch_bytes(graph) == 2 * 2 * 3 * 3 * 64
    assert micro_program.scratch_bytes(tflite_graph.read(graphs.mean_colour())) == 0
