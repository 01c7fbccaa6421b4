"""Starts several workers on this machine: `python training/launch.py --help`."""

import sys

from keras_resnet.commands import launch

if __name__ == "__main__":
    sys.exit(launch.main())
