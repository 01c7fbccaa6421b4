"""Classifies pictures with a .tflite: the runner, installed."""

import sys

from keras_resnet.runner import run_tflite


def main(argv):
    """Runs the device script; the first argument is the program's name."""
    sys.argv = argv
    return run_tflite.supervise()
