"""Runs a .tflite in the interpreter of TFLM, as a process of its own.

    python -m keras_resnet.edge.targets.tflm_process MODEL IMAGES OUTPUTS ARENA_BYTES

IMAGES and OUTPUTS are .npy files. The memory that was needed, and why a file is
refused, are lines that TFLM writes to stderr by itself: Python cannot ask for them. The
exit code is 1 if a file is refused.
"""

import sys

import numpy as np


def main(model, images, outputs, arena_bytes):
    """Writes the output for each image and tells how the arena was used."""
    from tflite_micro import runtime

    try:
        interpreter = runtime.Interpreter.from_file(model, arena_size=int(arena_bytes))
        found = []
        for image in np.load(images):
            interpreter.set_input(image[None], 0)
            interpreter.invoke()
            found.append(interpreter.get_output(0)[0])
    except RuntimeError as error:
        sys.exit(f"{error}")
    np.save(outputs, np.stack(found))
    interpreter.print_allocations()


if __name__ == "__main__":
    main(*sys.argv[1:])
