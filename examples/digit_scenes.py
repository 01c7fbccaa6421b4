"""Writes the held-out digit scenes as pictures with boxes and masks.

    python examples/digit_scenes.py scenes

The pictures are in the folder `images`, their boxes as XML of Pascal VOC in
`Annotations` and their masks as PNG in `masks`: what run_tflite.py --evaluate takes.
"""

import pathlib
import sys

import numpy as np
import PIL.Image
import tensorflow as tf

from keras_resnet.training.data.scenes import sources

OBJECT = (
    "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>"
    "<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)

root = pathlib.Path(sys.argv[1])
for name in ("images", "Annotations", "masks"):
    (root / name).mkdir(parents=True, exist_ok=True)
boxes, masks = (sources.load(task, "digit_scenes") for task in ("detect", "segment"))
scenes = tf.data.Dataset.zip(boxes.held_out.read(), masks.held_out.read())
for number, ((encoded, objects), (_, mask)) in enumerate(scenes.as_numpy_iterator()):
    (root / "images" / f"{number:03}.png").write_bytes(encoded)
    height, width = mask.shape
    corners = np.rint(objects.boxes * np.tile([height, width], 2)).astype(int)
    found = [
        OBJECT.format(boxes.labels[index], left, top, right, bottom)
        for (top, left, bottom, right), index in zip(
            corners.tolist(), objects.classes, strict=True
        )
    ]
    text = f"<annotation>{''.join(found)}</annotation>"
    (root / "Annotations" / f"{number:03}.xml").write_text(text, encoding="utf-8")
    PIL.Image.fromarray(mask).save(root / "masks" / f"{number:03}.png")
(root / "classes.txt").write_text("\n".join(masks.labels) + "\n", encoding="utf-8")
