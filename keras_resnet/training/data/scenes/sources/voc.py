"""Pascal VOC: an XML file for each picture."""

from keras_resnet.runner.annotations import XML_FOLDERS, companion, read_voc
from keras_resnet.runner.errors import UserError
from keras_resnet.training.data.scenes import assembly
from keras_resnet.training.data.scenes.annotations import Annotated, Box
from keras_resnet.training.data.scenes.sources import layout
from keras_resnet.training.data.sources import pictures


def load(data_dir, task, faults):
    """Opens pictures with XML files beside them, or in a folder "Annotations".

    Corners are taken as the edges of a box, in pixels from 0, as LabelImg, CVAT, Label
    Studio and Roboflow write them. The original files of the challenge count pixels
    from 1: their boxes are half a pixel off. Objects that are "difficult" are ignored.
    Pictures without a file are left out: they may hold anything.

    Args:
        data_dir: folder, see `layout.picture_parts`.
        task: "detect".
        faults: `Faults`.
    """
    root = layout.root_of("voc_folder", data_dir, "pictures and their XML files")
    left_out = pictures.LeftOut()
    parts = {
        name: [
            annotated
            for picture in paths
            if (annotated := _annotated(picture, left_out, faults))
        ]
        for name, paths in layout.picture_parts(root, left_out).items()
    }
    return assembly.of_annotated(
        "voc_folder", root, task, None, parts, left_out, faults
    )


def _annotated(picture, left_out, faults):
    source = companion(picture, (".xml",), XML_FOLDERS)
    if source is None:
        left_out.add("picture without an XML file", "pictures without an XML file")
        return None
    try:
        found = read_voc(source)
    except UserError as error:
        faults.report("damaged XML files", str(error))
        return None
    boxes = [Box(*one) for one in found.objects]
    return Annotated(picture, source, found.size, boxes)
