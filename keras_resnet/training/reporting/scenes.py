"""The report of a run that learned boxes or masks: `report.html`."""

import base64
import dataclasses
import io
import pathlib

import numpy as np
import PIL.Image

from keras_resnet import files, page_template
from keras_resnet.runner.detector import SHOWN_SCORE, Box, Detection
from keras_resnet.runner.output import enlarged
from keras_resnet.runner.showing import colour_of_class, draw_boxes, painted
from keras_resnet.training.data import damaged
from keras_resnet.training.reporting import charts, page, tables
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.scenes import answers

PICTURES = 12
QUALITY = 85  # of JPEG
# What is measured: its name in the page, and a note.
MEASURES = {
    "ap50": ("mAP50", "boxes count as right from an IoU of 0.5"),
    "ap": ("mAP", "mean over IoU 0.5 to 0.95"),
    "ap75": ("mAP75", "from an IoU of 0.75"),
    "miou": ("mean IoU", "of all pixels, mean over the classes"),
}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A held-out picture as the page shows it: data URIs of images."""

    annotated: str
    found: str


def write(directory, title, model, dataset, preprocessing, metrics):
    """Writes the report of a run; returns its metrics with those of each class.

    Args:
        directory: the folder of the run, a `pathlib.Path`.
        title: what was trained, on what: see `reporting.title`.
        model: which ends with scores, of Keras 3 or tf_keras.
        dataset: its `SceneDataset`.
        preprocessing: what the model expects.
        metrics: dictionary of what was measured at the end of the training.
    """
    answer = answers.of_model(model, preprocessing, dataset.task)
    measured, pictures = answers.Measured(dataset), []
    # Evenly spread, since neighbours often show the same.
    total = dataset.held_out.examples
    shown = set(np.linspace(0, total - 1, min(PICTURES, total)).astype(int).tolist())
    number = 0
    with damaged.damaged_images_named(dataset):
        pairs = answers.examples(dataset, dataset.held_out, preprocessing)
        for batch in answers.batched(pairs):
            pixels, targets = zip(*batch, strict=True)
            found = answer(np.stack(pixels))
            measured.add(targets, found)
            for one in zip(pixels, targets, found, strict=True):
                if number in shown:
                    pictures.append(_picture(dataset, *one))
                number += 1
    metrics = metrics | {"by_class": measured.result()["by_class"]}
    config = run_folder.read_config(directory)
    text = page_template.render(
        pathlib.Path(__file__).parent,
        "scenes.html.j2",
        title=title,
        task=dataset.task,
        headline=[(*MEASURES[x], metrics[x]) for x in MEASURES if x in metrics],
        numbers=page.numbers(dataset),
        charts=charts.of_history(charts.read_history(pathlib.Path(directory))),
        chart=charts,
        curves=_curves(measured.counts) if dataset.task == "detect" else None,
        classes=_classes(metrics["by_class"]),
        rows=tables.ROWS,
        pictures=pictures,
        shown_score=SHOWN_SCORE,
        details=page.details(config, metrics),
    )
    files.write_text(pathlib.Path(directory) / page.FILE, text)
    return metrics


def _classes(by_class):
    """Returns the rows of the table of classes, the worst first.

    They are (label, colour, number of objects or pixels, what decides, all measures).
    """
    rows = []
    for index, (label, found) in enumerate(by_class.items()):
        place = index if "iou" in found else index + 1  # class 0 is the background
        value = found.get("iou", found.get("ap50"))
        number = found.get("pixels", found.get("objects"))
        rows.append((label, _css(colour_of_class(place)), number, value, found))
    return sorted(rows, key=lambda row: (row[3] is None, row[3]))


def _curves(measured):
    """Returns precision over recall at an IoU of 0.5: [(colour, points of the page)].

    One for each class of which there are objects.
    """
    precisions = measured.precisions()[0]
    recalls = np.linspace(0, 1, len(precisions))
    x = charts.LEFT + recalls * (charts.RIGHT - charts.LEFT)
    y = charts.BOTTOM - precisions * (charts.BOTTOM - charts.TOP)
    return [
        (_css(colour_of_class(index + 1)), list(zip(x, y[:, index], strict=True)))
        for index in np.flatnonzero(~np.isnan(precisions[0]))
    ]


def _css(colour):
    return "rgb({} {} {})".format(*colour)


def _picture(dataset, pixels, target, found):
    """Returns the `Picture` of an image, its target and what was found."""
    image = PIL.Image.fromarray(pixels)
    if dataset.task == "segment":
        masks = target, answers.enlarged(found, target.shape)
        drawn = [enlarged(painted(image, mask))[0] for mask in masks]
    else:
        there = np.ones(len(target.classes))
        drawn = [
            draw_boxes(image, _objects(dataset.labels, image.size, *boxes))
            for boxes in (
                (target.boxes, target.classes, there),
                (found.boxes, found.classes, found.scores),
            )
        ]
    return Picture(*map(_data_uri, drawn))


def _objects(labels, size, boxes, classes, scores):
    """Returns the list of `Detection` of boxes in shares of an image of a size."""
    width, height = size
    return [
        Detection(
            index,
            labels[index],
            score,
            Box(left * width, top * height, right * width, bottom * height),
        )
        for (top, left, bottom, right), index, score in zip(
            boxes.clip(0, 1).tolist(), classes.tolist(), scores.tolist(), strict=True
        )
        if score >= SHOWN_SCORE
    ]


def _data_uri(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, optimize=True)
    content = base64.b64encode(file.getvalue()).decode("ascii")
    return f"data:image/jpeg;base64,{content}"
