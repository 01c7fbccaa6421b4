"""Estimates what an Edge TPU runs of a .tflite; --help lists the flags, with examples.

The flags are defined in keras_resnet/commands/edgetpu.py, since the installed command
`keras-resnet edgetpu` has the same.
"""

from keras_resnet.commands import app, edgetpu

if __name__ == "__main__":
    app.run(edgetpu)
