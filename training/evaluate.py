"""Evaluates a model: keras_resnet/commands/evaluate.py has the flags."""

from keras_resnet.commands import app, evaluate

if __name__ == "__main__":
    app.run(evaluate)
