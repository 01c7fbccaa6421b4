"""Converts a trained model to a .tflite; --help lists the flags, with examples.

The flags are defined in keras_resnet/commands/export.py, since the installed command
`keras-resnet export` has the same.
"""

from keras_resnet.commands import app, export

if __name__ == "__main__":
    app.run(export)
