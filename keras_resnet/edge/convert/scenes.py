"""A detector or a segmenter of Keras -> the bytes of .tflite files."""

import collections

from keras_resnet.edge.convert import converter, metadata, postprocess, tflite_file
from keras_resnet.runner.preprocessing import BOXES, MASKS

# Of one conversion: `raw` gives boxes and scores, `boxes` ends with
# TFLite_Detection_PostProcess.
DetectorFiles = collections.namedtuple("DetectorFiles", "raw boxes")
RAW_OUTPUTS = ("boxes", "scores")


def detector(content, anchors, labels, preprocessing, about):
    """Makes both files of a detector.

    Args:
        content: what `converter.convert_keras` makes of a model with the outputs
            "boxes", offsets (batch, anchors, 4), and "scores", (batch, anchors,
            classes); or the same of a quantization-aware SavedModel.
        anchors: float32 array (anchors, 4): y, x, height, width, shares of the input.
        labels: names of the classes, or None.
        preprocessing: what the model takes, `uniform` as `from_keras` asks for it.
        about: `metadata.About`.

    Returns:
        `DetectorFiles`, bytes of files with metadata.
    """
    content = converter.with_pixels(content, preprocessing)
    raw = tflite_file.with_outputs_in_order(content, RAW_OUTPUTS)
    with_boxes = postprocess.with_postprocess(raw, anchors)

    def described(content, anchors):
        return metadata.with_metadata(
            content, labels, preprocessing, about, gives=BOXES, anchors=anchors
        )

    return DetectorFiles(described(raw, anchors), described(with_boxes, None))


def segmenter(content, labels, preprocessing, about):
    """Makes the file of a segmenter, whose uint8 scores have the scale 1/256.

    Args:
        content: what `converter.from_keras` makes of a model with softmax scores
            (batch, height, width, classes).
        labels: as for `detector`.
        preprocessing: likewise.
        about: likewise.

    Returns:
        bytes of the file with metadata.
    """
    return metadata.with_metadata(content, labels, preprocessing, about, gives=MASKS)
