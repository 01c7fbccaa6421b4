"""Classifies images with a .tflite: the runner, installed."""

from keras_resnet.runner import command_line


def main(argv):
    """Runs the device script; the first argument is the program's name."""
    program, *arguments = argv
    return command_line.main(arguments, program)
