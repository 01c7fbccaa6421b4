"""Models that find coloured squares: what they give is known."""

import functools

import numpy as np

from keras_resnet.edge.convert import converter, metadata, scenes
from keras_resnet.preprocessing import Preprocessing

CELL = 8  # pixels: squares of the pictures fill cells of a grid
HEIGHT, WIDTH = 64, 96
LABELS = ["red", "green", "blue"]
COLOURS = np.array([[230, 20, 20], [20, 230, 20], [20, 20, 230]], np.uint8)
GREY = 90
PREPROCESSING = Preprocessing((HEIGHT, WIDTH), (128.0,) * 3, (64.0,) * 3, resize="pad")
ABOUT = metadata.About("squares")


def anchors():
    """One anchor for each cell: the cell itself."""
    rows, columns = HEIGHT // CELL, WIDTH // CELL
    y, x = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    centres = np.stack([y / rows, x / columns], -1).reshape(-1, 2)
    sides = np.broadcast_to([1 / rows, 1 / columns], centres.shape)
    return np.concatenate([centres + sides / 2, sides], 1).astype(np.float32)


def _colour_logits(classes):
    """A convolution whose logits are large for a cell of the colour."""
    import keras

    kernel = np.full((3, classes), -2.0, np.float32)
    np.fill_diagonal(kernel, 2.0)
    bias = np.full(classes, -6.0, np.float32)
    layer = keras.layers.Conv2D(classes, 1, name="logits")
    layer.build((None, None, None, 3))
    layer.set_weights([kernel[None, None], bias])
    return layer


def _cells(images):
    import keras

    return keras.layers.AveragePooling2D(CELL, name="cells")(images)


def detector():
    """A `keras.Model` that finds the squares; its offsets are not all 0."""
    import keras

    images = keras.Input((HEIGHT, WIDTH, 3))
    cells = _cells(images)
    logits = _colour_logits(len(LABELS))(cells)
    scores = keras.layers.Activation("sigmoid")(logits)
    moves = keras.layers.Conv2D(4, 1, name="moves", kernel_initializer="zeros")
    offsets = moves(cells)
    # The redder, the wider: 0 at the red of the squares.
    kernel = np.zeros((1, 1, 3, 4), np.float32)
    kernel[0, 0, 0, 3] = 0.5
    moves.set_weights([kernel, np.array([0, 0, 0, -0.8], np.float32)])
    shape = (-1, len(LABELS))
    outputs = {
        "boxes": keras.layers.Reshape((-1, 4), name="boxes")(offsets),
        "scores": keras.layers.Reshape(shape, name="scores")(scores),
    }
    return keras.Model(images, outputs, name="squares")


def segmenter():
    """A `keras.Model` that tells the colour of each cell, or grey."""
    import keras

    images = keras.Input((HEIGHT, WIDTH, 3))
    logits = _colour_logits(len(LABELS))(_cells(images))
    # Grey, class 0, is what has no colour.
    grey = keras.layers.Conv2D(4, 1, name="grey")
    wide = grey(logits)
    kernel = np.zeros((1, 1, 3, 4), np.float32)
    kernel[0, 0, :, 1:] = np.eye(3)
    grey.set_weights([kernel, np.zeros(4, np.float32)])
    return keras.Model(images, keras.layers.Softmax()(wide), name="colours")


def picture(squares, size=(HEIGHT, WIDTH), seed=0):
    """Returns a picture with (row, column, class) squares, uint8 (height, width, 3)."""
    pixels = np.full((*size, 3), GREY, np.uint8)
    for row, column, index in squares:
        part = np.s_[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL]
        pixels[part] = COLOURS[index]
    return pixels


def pictures(count, seed=0):
    """Returns (pixels, its squares) of pictures with one to six squares."""
    random = np.random.RandomState(seed)
    made = []
    for _ in range(count):
        cells = random.permutation(HEIGHT // CELL * (WIDTH // CELL))
        squares = [
            (*divmod(int(cell), WIDTH // CELL), int(random.randint(3)))
            for cell in cells[: random.randint(1, 7)]
        ]
        made.append((picture(squares), squares))
    return made


@functools.cache
def detector_files(quantization="int8"):
    """The `DetectorFiles` of `detector`."""
    calibration = np.stack([pixels for pixels, _ in pictures(30, seed=9)])
    content = converter.convert_keras(
        detector(), PREPROCESSING, quantization, calibration
    )
    return scenes.detector(content, anchors(), LABELS, PREPROCESSING, ABOUT)


@functools.cache
def segmenter_file(quantization="int8"):
    """The file of `segmenter`."""
    calibration = np.stack([pixels for pixels, _ in pictures(30, seed=9)])
    content = converter.from_keras(
        segmenter(), PREPROCESSING, quantization, calibration
    )
    return scenes.segmenter(content, ["grey", *LABELS], PREPROCESSING, ABOUT)
