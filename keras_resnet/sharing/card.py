"""The model card of a run: what its files say, and nothing that they do not say."""

import html
import re

import huggingface_hub

from keras_resnet.edge.report.summary import ACCURACIES
from keras_resnet.runner.learning import UNKNOWN
from keras_resnet.sharing import contents
from keras_resnet.training.reporting import title
from keras_resnet.training.runs import folder as run_folder
from keras_resnet.training.settings import network_name
from keras_resnet.weights import download

ROWS = 20  # of classes, the worst, as the report of a run has them first
# Metrics of a run in the order of the table, shares of 1.
METRICS = {
    "top1": "top-1",
    "top5": "top-5",
    "balanced_accuracy": "balanced accuracy, the mean over the classes",
    "top1_with_unknown": "top-1 with the label unknown",
    "mean_average_precision": "mean average precision",
    "label_accuracy": "label accuracy",
    "ap50": "mAP50, boxes that are right from an IoU of 0.5",
    "ap": "mAP, the mean over IoU 0.5 to 0.95",
    "miou": "mean IoU of the pixels",
}
# By the task of a run: the hub's name of it, and what a model returns.
TASKS = {
    "classify": (
        "image-classification",
        "scores = model.predict(x)  # (batch, classes), named by model.labels",
    ),
    "detect": (
        "object-detection",
        'found = model.predict(x)  # "boxes" (from heads.anchors(model)) and "scores"',
    ),
    "segment": (
        "image-segmentation",
        "scores = model.predict(x)  # (batch, rows, columns, classes)",
    ),
}
# Of the rows of `by_class`: what counts the examples of a class, its name, the measure
# and its name.
_CLASS_COLUMNS = (
    ("examples", "held-out images", "average_precision", "average precision"),
    ("examples", "held-out images", "right", "right"),
    ("objects", "held-out objects", "ap50", "AP50"),
    ("pixels", "held-out pixels", "iou", "IoU"),
)
_MARKUP = re.compile(r"([\\`*_\[\]|#])")


def text(found, repo, license=None):
    """Returns the card as Markdown with YAML in front.

    Args:
        found: the `Contents`.
        repo: "user/name".
        license: of the model, or None.
    """
    settings = found.config["settings"]
    model = network_name(settings["model"], settings.get("width"))
    heading = title(model, settings["dataset"], settings["data_dir"])
    sections = {
        "Use it": _use(found, repo),
        "Accuracy": _accuracy(found),
        "Classes": _classes(found),
        "Data": _data(found),
        "Preprocessing": _fields(found.config["preprocessing"]),
        "Training": _fields(settings | found.config["recipe"]),
        "Versions": _fields(found.config["versions"]),
        "Licence": _licence(found, license),
    }
    parts = [f"# {_escaped(heading)}"]
    parts += [f"## {name}\n\n{body}" for name, body in sections.items() if body]
    front = _front_matter(found, model, license)
    return f"---\n{front}\n---\n\n" + "\n\n".join(parts) + "\n"


def _front_matter(found, model, license):
    settings, metrics = found.config["settings"], found.run.metrics
    about = {"license": license, "library_name": "keras"}
    tags = ["keras-resnet", "resnet"] if settings["model"].startswith("resnet") else []
    about["tags"] = [*tags, *(["tflite"] if found.exports else [])]
    about["pipeline_tag"] = TASKS[run_folder.task_of(settings)][0]
    if "top1" in metrics:
        about["metrics"] = ["accuracy"]
        about["model_name"] = model
        result = huggingface_hub.EvalResult(
            task_type="image-classification",
            dataset_type=settings["dataset"],
            dataset_name=_data_name(found),
            metric_type="accuracy",
            metric_value=round(metrics["top1"], 6),
            metric_name="top-1",
        )
        about["eval_results"] = [result]
    return huggingface_hub.ModelCardData(**about).to_yaml()


def _use(found, repo):
    predict = f"""
x = keras_resnet.preprocess_input(images, model)  # uint8, (batch, height, width, 3)
{TASKS[run_folder.task_of(found.config["settings"])][1]}"""
    parts = [
        "With [keras_resnet](https://pypi.org/project/keras-resnet-zoo/), which knows "
        "the labels and the preprocessing:",
        "```python\nimport keras_resnet\n\n"
        f'model = keras_resnet.load("hf://{repo}"){predict}\n```',
        "With Keras alone, images have to be prepared as said below:",
        f'```python\nimport keras\n\nmodel = keras.saving.load_model("hf://{repo}")'
        "\n```",
    ]
    if found.exports:
        name = found.exports[0].path.name
        parts += [
            "On a device, with `run_tflite.py` of keras_resnet. The .tflite file takes "
            "pixels as they are, and holds the labels:",
            f"```\nhf download {repo} {name} --local-dir .\n"
            f"python run_tflite.py --model={name} photo.jpg\n```",
        ]
    parts.append(
        f"`{download.SUMS}` has the hashes of these files, and `{contents.LABELS}` the "
        "names of the classes in the order of the scores."
    )
    return "\n\n".join(parts)


def _accuracy(found):
    metrics = found.run.metrics
    images = f"{metrics['examples_evaluated']:,}"
    skipped = "top5" if len(found.run.labels) <= 5 else None
    rows = [
        (f"`{download.MODEL}`", name, f"{metrics[key]:.2%}", images)
        for key, name in METRICS.items()
        if metrics.get(key) is not None and key != skipped
    ]
    for export in found.exports:
        compared = (export.report or {}).get("compared") or {}
        for key, name in ACCURACIES.items():
            if compared.get(key) is not None:
                value, of_keras = compared[key], compared[f"keras_{key}"]
                rows.append(
                    (
                        f"`{export.path.name}`",
                        name,
                        f"{value:.2%} (`{download.MODEL}` on the same: {of_keras:.2%})",
                        f"{compared['images']:,}",
                    )
                )
    table = _table(("file", "measure", "value", "images"), rows)
    lines = ["On held-out images, which were not trained on:", table]
    if found.run.labels[-1] == UNKNOWN:
        lines.append(
            f"The label `{UNKNOWN}` is the answer to pictures that resemble nothing "
            "that was learned."
        )
    return "\n\n".join(lines)


def _classes(found):
    """The classes with their accuracy, the worst first; labels alone without it."""
    by_class = found.run.metrics.get("by_class", {})
    measured = set().union(*by_class.values())
    columns = [c for c in _CLASS_COLUMNS if {c[0], c[2]} <= measured]
    if not columns:
        shown = found.run.labels[:ROWS]
        end = "" if len(shown) == len(found.run.labels) else ", ..."
        return ", ".join(map(_escaped, shown)) + end
    count, counted, value, measure = columns[0]
    known = {
        label: row
        for label, row in by_class.items()
        if row[count] and row[value] is not None
    }
    shares = {
        label: row[value] / row[count] if value == "right" else row[value]
        for label, row in known.items()
    }
    worst = sorted(shares, key=shares.get)[:ROWS]
    rows = [
        (_escaped(label), f"{known[label][count]:,}", f"{shares[label]:.2%}")
        for label in worst
    ]
    table = _table(("class", counted, measure), rows)
    if len(worst) < len(known):
        table += f"\n\nThese are the least accurate ones of {len(known):,} classes."
    return table


def _data_name(found):
    settings, data = found.config["settings"], found.config.get("data", {})
    if settings["dataset"] in ("folder", "csv"):
        return settings["data_dir"]
    return data.get("name", settings["dataset"])


def _data(found):
    data = found.config.get("data", {})
    rows = [("name", _escaped(_data_name(found)))]
    if "images" in data:
        rows.append(("images, training and held out", f"{data['images']:,}"))
    rows.append(("held out", f"{found.run.metrics['examples_evaluated']:,}"))
    return _table(("data", ""), rows)


def _licence(found, license):
    lines = [f"The model is under {_escaped(license)}."] if license else []
    if found.licence:
        licence = _escaped(found.licence)
        lines.append(f"The weights that its training began from are under {licence}.")
    return " ".join(lines)


def _fields(values):
    """Returns a table of what has a value."""
    rows = [
        (f"`{name}`", _escaped(_value(value)))
        for name, value in values.items()
        if value not in (None, [], False)
    ]
    return _table(("name", "value"), rows)


def _value(value):
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _escaped(text):
    """Returns text that Markdown and HTML show as it is."""
    return _MARKUP.sub(r"\\\1", html.escape(text, quote=False))
