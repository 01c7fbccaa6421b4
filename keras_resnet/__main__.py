"""The command `keras-resnet`; `python -m keras_resnet` is the same.

keras-resnet COMMAND --help shows the flags of a command, with examples.
"""

import difflib
import importlib
import sys

from keras_resnet.commands import app

# Each is a module of `keras_resnet.commands`, imported when it is called.
COMMANDS = {
    "train": "train a model of the zoo",
    "qat": "fine-tune a trained model quantization-aware, for int8",
    "evaluate": "measure the accuracy of a .keras or .tflite file",
    "adopt": "make a run of a Keras model of your own",
    "export": "convert a trained model to a .tflite for the device",
    "edgetpu": "estimate which operators of a .tflite run on a Coral Edge TPU",
    "page": "write a web page that runs a .tflite by itself",
    "run": "run a .tflite on pictures: classes, boxes or masks",
    "push": "put a run on the Hugging Face hub, with a model card",
    "launch": "start several workers of a training on this machine",
    "models": "print the models of the zoo and their weights",
}


def main():
    """Runs the command that the first argument names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        lines = [f"  {name:<10}{text}" for name, text in COMMANDS.items()]
        print("usage: keras-resnet COMMAND [flags]\n", *lines, sep="\n")
        print("\nkeras-resnet COMMAND --help shows its flags, with examples.")
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose {', '.join(COMMANDS)}."
        app.fail(f"unknown command: {hint} Received: {name!r}")
    command = importlib.import_module(f"keras_resnet.commands.{name}")
    argv = [f"keras-resnet {name}", *arguments]
    if hasattr(command, "define_flags"):
        return app.run(command, argv, installed=True)
    return command.main(argv)


if __name__ == "__main__":
    sys.exit(main())
