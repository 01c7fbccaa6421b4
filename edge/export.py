"""Converts a model to a .tflite: keras_resnet/commands/export.py has the flags."""

from keras_resnet.commands import app, export

if __name__ == "__main__":
    app.run(export)
