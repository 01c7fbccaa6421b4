"""scikit-learn's digits: 1,797 scans of 8x8 pixels in 16 greys, embedded."""

import hashlib

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from keras_resnet.training.data.datasets import HELD_OUT_EVERY, Dataset, Split


def load():
    """Returns the `Dataset`, with a fifth of each class held out."""
    images, digits = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    train, held_out = train_test_split(
        np.arange(len(digits)),
        test_size=1 / HELD_OUT_EVERY,
        stratify=digits,
        random_state=0,
    )

    def split(indices):
        def read():
            arrays = images[indices], digits[indices].astype(np.int64)
            dataset = tf.data.Dataset.from_tensor_slices(arrays)
            return dataset.map(lambda image, label: (tf.io.encode_png(image), label))

        return Split(len(indices), read)

    # Another version of scikit-learn could split them differently.
    content = images[[*train, *held_out]].tobytes()
    fingerprint = {"sha256": hashlib.sha256(content).hexdigest()}
    labels = tuple("0123456789")
    return Dataset("digits", labels, split(train), split(held_out), fingerprint)
