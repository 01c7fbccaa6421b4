"""Prints the models of the zoo, their weights and sizes, as tables in Markdown."""

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
    "resnet1202": (19.424, 2.830, 2.830),
}

# Parameters and millions of multiply-adds at the widths of `models.NARROW`, counted in
# the same way, the stride on the 1x1 convolution.
NARROW_SIZES = {
    "resnet18": ((831_096, 135.6), (3_055_880, 483.1), (6_675_352, 1042.6)),
    "resnet34": ((1_464_248, 251.2), (5_584_776, 945.6), (12_362_584, 2083.1)),
    "resnet50": ((1_993_976, 263.6), (6_917_640, 994.5), (14_771_992, 2192.6)),
    "resnet101": ((3_190_776, 495.6), (11_678_728, 1922.6), (25_464_856, 4280.7)),
    "resnet152": ((4_177_144, 727.7), (15_601_160, 2850.6), (34_273_048, 6368.9)),
    "resnet20_224": ((1_126_520, 150.1), (4_236_552, 541.0), (9_331_096, 1172.7)),
    "resnet16_224": ((535_672, 121.2), (1_875_208, 425.3), (4_019_608, 912.6)),
    "resnet8": ((6_530, 1.9), (19_954, 3.2), (47_338, 9.5)),
    "resnet14": ((13_570, 3.7), (44_370, 6.8), (104_138, 19.6)),
    "resnet20": ((20_610, 5.5), (68_786, 10.3), (160_938, 29.6)),
    "resnet32": ((34_690, 9.0), (117_618, 17.4), (274_538, 49.6)),
    "resnet44": ((48_770, 12.6), (166_450, 24.5), (388_138, 69.7)),
    "resnet56": ((62_850, 16.1), (215_282, 31.5), (501_738, 89.8)),
    "resnet110": ((126_210, 32.0), (435_026, 63.4), (1_012_938, 180.0)),
    "resnet1202": ((1_407_490, 354.1), (4_878_738, 707.5), (11_350_538, 2004.9)),
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


NARROW_HEADER = (
    "Model",
    *(f"Parameters at `width={width}`" for width in ("0.25", "0.5", "0.75")),
    *(f"Multiply-adds (M) at {width}" for width in ("0.25", "0.5", "0.75")),
)


def table():
    """Returns the zoo as two Markdown tables: the weight files, and widths below 1."""
    return f"{_weights_table()}\n\n{_narrow_table()}"


def _narrow_table():
    rows = [NARROW_HEADER, ("---",) * len(NARROW_HEADER)]
    for model, sizes in NARROW_SIZES.items():
        parameters, multiply_adds = zip(*sizes, strict=True)
        rows.append(
            (model, *(f"{n:,}" for n in parameters), *(f"{n}" for n in multiply_adds))
        )
    return _markdown(rows)


def _markdown(rows):
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _weights_table():
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
    return _markdown(rows)


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
    """Prints the tables."""
    print(table())
