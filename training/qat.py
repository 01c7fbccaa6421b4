"""Fine-tunes a model for int8: keras_resnet/commands/qat.py has the flags."""

from keras_resnet.commands import app, qat

if __name__ == "__main__":
    app.run(qat)
