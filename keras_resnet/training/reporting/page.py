"""The report of a run as one HTML page, without scripts and external files."""

import pathlib

from keras_resnet import files, page_template
from keras_resnet.training.data import damaged
from keras_resnet.training.data import survey as surveys
from keras_resnet.training.data.sources.pictures import is_uneven
from keras_resnet.training.reporting import answers as of_answers
from keras_resnet.training.reporting import calibration, charts, tables, thumbnails

FILE = "report.html"


def write(directory, title, dataset, answers, metrics, config, survey=None):
    """Writes `report.html` into the folder of a run.

    Args:
        directory: the folder, which may hold a history.csv.
        title: what was trained, on what.
        dataset: the `Dataset`: thumbnails show pictures of its held-out split.
        answers: the `Answers` to that split.
        metrics: dictionary, the content of `metrics.json`.
        config: dictionary, the content of `config.json`.
        survey: the `Survey` of the pictures; None if they are not the user's.
    """
    mistakes, unsure = tables.examples(answers)
    indices = {example.index for example in mistakes + unsure}
    with damaged.damaged_images_named(dataset):
        shown = thumbnails.of_examples(dataset.held_out, indices)
    classes = tables.classes(answers)
    matrix = None
    if not answers.multi_label and len(answers.labels) <= tables.CLASSES:
        matrix = tables.confusion_matrix(answers).tolist()
    text = page_template.render(
        pathlib.Path(__file__).parent,
        title=title,
        headline=_headline(answers, metrics, classes),
        warning=survey.warning() if survey else "",
        survey=survey,
        warnings_file=surveys.FILE,
        charts=charts.of_history(charts.read_history(pathlib.Path(directory))),
        chart=charts,
        answers=answers,
        labels=answers.labels,
        classes=classes,
        matrix=matrix,
        pairs=None if answers.multi_label else tables.confused_pairs(answers),
        bins=None
        if answers.multi_label
        else calibration.rows(answers.scores, answers.targets),
        has_unknown=answers.has_unknown,
        strangers=answers.has_unknown
        and calibration.strangers(answers.scores, answers.targets),
        metrics=metrics,
        galleries=[
            ("Most confident mistakes", mistakes),
            ("Least confident right answers", unsure),
        ],
        thumbnails=shown,
        name=lambda index: _name(dataset.held_out, index),
        pictures=tables.pictures(survey) if survey else None,
        numbers=numbers(dataset),
        rows=tables.ROWS,
        formats=tables.FORMATS,
        details=details(config, metrics),
    )
    files.write_text(pathlib.Path(directory) / FILE, text)


def numbers(dataset):
    """Returns {text: number of pictures} of a dataset."""
    return {
        "to train on": dataset.train.examples,
        "held out": dataset.held_out.examples,
    }


def details(config, metrics):
    """Returns {heading: {name: text}} of how a run was trained.

    Args:
        config: dictionary, the content of `config.json`.
        metrics: dictionary, the content of `metrics.json`.
    """
    return {
        name: {key: _text(value) for key, value in of.items() if value is not None}
        for name, of in (
            ("Settings", config["settings"]),
            ("Recipe", config["recipe"]),
            ("Preprocessing", config["preprocessing"]),
            ("Results", {k: v for k, v in metrics.items() if k != "by_class"}),
            ("Versions", config["versions"]),
        )
    }


def _headline(answers, metrics, classes):
    """Returns [(name, value, note)], the numbers to see first; shares of 1."""
    count = len(answers.scores)
    if answers.multi_label:
        return [
            ("mean average precision", metrics["mean_average_precision"], ""),
            ("label accuracy", metrics["label_accuracy"], ""),
        ]
    right = int(answers.right().sum())
    error = of_answers.standard_error(right, count)
    found = [("top-1", right / count, f"± {error:.1%}, {right:,} of {count:,}")]
    if answers.classes > 5:
        found.append(("top-5", metrics["top5"], ""))
    if answers.has_unknown:
        note = f"of the classes; {metrics['top1_of_known']:.1%} of these are right"
        found.append(("known", metrics["known"], note))
    if is_uneven([row["examples"] for row in classes]):
        balanced = metrics["balanced_accuracy"]
        found.append(("balanced accuracy", balanced, "mean over the classes"))
    worst = classes[0]
    note = f"{worst['right']:,} of {worst['examples']:,}: {worst['label']}"
    return [*found, ("worst class", worst["share"], note)]


def _name(split, index):
    """Returns the name of an example: its file and folder, or its number."""
    if split.names is None:
        return f"image {index}"
    return "/".join(pathlib.PurePath(split.names[index]).parts[-2:])


def _text(value):
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
