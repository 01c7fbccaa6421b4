"""Makes a run of a Keras model of your own; --help lists the flags, with examples.

The flags are defined in keras_resnet/commands/adopt.py, since the installed command
`keras-resnet adopt` has the same.
"""

from keras_resnet.commands import adopt, app

if __name__ == "__main__":
    app.run(adopt)
