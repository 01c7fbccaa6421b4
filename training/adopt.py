"""Adopts a Keras model: keras_resnet/commands/adopt.py has the flags."""

from keras_resnet.commands import adopt, app

if __name__ == "__main__":
    app.run(adopt)
