"""Measures the accuracy of a model; --help lists the flags, with examples.

The flags are defined in keras_resnet/commands/evaluate.py, since the installed command
`keras-resnet evaluate` has the same.
"""

from keras_resnet.commands import app, evaluate

if __name__ == "__main__":
    app.run(evaluate)
