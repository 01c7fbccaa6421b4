"""Estimates for an Edge TPU: keras_resnet/commands/edgetpu.py has the flags."""

from keras_resnet.commands import app, edgetpu

if __name__ == "__main__":
    app.run(edgetpu)
