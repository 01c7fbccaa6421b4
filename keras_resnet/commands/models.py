"""Prints the models of the zoo and their weights, as a table in Markdown."""

from keras_resnet.weights import registry

# Millions of parameters (Table 6 of the paper counts option A, a little less),
# and billions of multiply-adds at the default input size with the stride on the
# 1x1 and on the 3x3 convolution. Both include the default classifier. A test counts
# them on the models. The plain networks are to compare with, not to choose.
SIZES = {
    "resnet18": (11.690, 1.814, 1.814),
    "resnet34": (21.798, 3.664, 3.664),
    "resnet50": (25.557, 3.858, 4.089),
    "resnet101": (44.549, 7.570, 7.801),
    "resnet152": (60.193, 11.282, 11.514),
    "resnet20_224": (16.410, 2.045, 2.045),
    "resnet16_224": (6.969, 1.583, 1.583),
    "resnet8": (0.078, 0.013, 0.013),
    "resnet14": (0.175, 0.027, 0.027),
    "resnet20": (0.272, 0.041, 0.041),
    "resnet32": (0.467, 0.069, 0.069),
    "resnet44": (0.661, 0.097, 0.097),
    "resnet56": (0.856, 0.126, 0.126),
    "resnet110": (1.731, 0.253, 0.253),
}

HEADER = (
    "Model",
    "Parameters (M)",
    "Multiply-adds (G)",
    "`weights=`",
    "Top-1 at 224 px (%)",
    "Best top-1 (%)",
    "Licence",
)


def table():
    """Returns the zoo as a Markdown table, one row for each weight file."""
    rows = [HEADER, ("---",) * len(HEADER)]
    for model, (parameters, *giga_multiply_adds) in SIZES.items():
        for entry in registry.weight_files().get(model, {}).values():
            multiply_adds = giga_multiply_adds[entry.stride_on == "3x3"]
            default = registry.default(model) == entry
            rows.append(
                (
                    model,
                    f"{parameters:.3f}",
                    f"{multiply_adds:.3f}",
                    entry.tag + (" (default)" if default else ""),
                    _at_224(entry.evaluations[0]),
                    _best(entry.evaluations),
                    entry.licence,
                )
            )
        if model not in registry.weight_files():
            size = (f"{parameters:.3f}", f"{giga_multiply_adds[0]:.3f}")
            rows.append((model, *size, "none", "-", "-", "-"))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _at_224(evaluation):
    size = evaluation.preprocessing.input_size
    known = evaluation.top1 is not None and size == (224, 224)
    return f"{evaluation.top1:g}" if known else "-"


def _best(evaluations):
    best = max(evaluations, key=lambda evaluation: evaluation.top1 or 0)
    size = best.preprocessing.input_size[0]
    return "-" if best.top1 is None else f"{best.top1:g} ({size} px)"


def define_flags():
    """Defines none."""


def main():
    """Prints the table."""
    print(table())
