"""Trains a model; --help lists the flags, with examples.

The flags are defined in keras_resnet/commands/train.py, since the installed command
`keras-resnet train` has the same.
"""

from keras_resnet.commands import app, train

if __name__ == "__main__":
    app.run(train)
