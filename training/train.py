"""Trains a model: keras_resnet/commands/train.py has the flags."""

from keras_resnet.commands import app, train

if __name__ == "__main__":
    app.run(train)
