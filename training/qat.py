"""Fine-tunes a trained model quantization-aware; --help lists the flags, with examples.

The flags are defined in keras_resnet/commands/qat.py, since the installed command
`keras-resnet qat` has the same.
"""

from keras_resnet.commands import app, qat

if __name__ == "__main__":
    app.run(qat)
