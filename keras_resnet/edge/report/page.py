"""The export report as one HTML page: no script, nothing from elsewhere."""

import html as escaping

from keras_resnet.edge.report import summary as export_report

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: 0.2rem 0.7rem 0.2rem 0; vertical-align: top;
         border-bottom: 1px solid #eee }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
td.bars { width: 50%; vertical-align: middle } svg { display: block; width: 100% }
.own { fill: #1f77b4 } .total { fill: #b9cfe2 }
p.key span { display: inline-block; width: 1em; height: 0.7em; margin-right: 0.4em }
"""


def html(report):
    """Draws a report.

    Args:
        report: what `edge/export.py` writes to `.report.json`.

    Returns:
        The page, as text.
    """
    title = _text(f"{report['model']}, {report['quantize']}")
    parts = [_table([], export_report.rows(report))]
    if report.get("layers"):
        parts += _layers(report["layers"])
    parts += _operators(report["operators"])
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )


def _layers(errors):
    most = max(max(row["snr_db"], row["own_snr_db"] or 0.0) for row in errors)

    def bars(row):
        widths = [
            (kind, max(0.0, 100 * value / most if most > 0 else 0.0))
            for kind, value in (("own", row["own_snr_db"]), ("total", row["snr_db"]))
            if value is not None
        ]
        drawn = "".join(
            f'<rect class="{kind}" y="{6 * number}" height="5" width="{width:.2f}"/>'
            for number, (kind, width) in enumerate(widths)
        )
        return (
            '<svg viewBox="0 0 100 12" height="12" preserveAspectRatio="none">'
            f"{drawn}</svg>"
        )

    yield "<h2>Error of each layer, the worst first</h2>"
    yield (
        "<p>Signal-to-noise ratio of each layer's output against the float model, in "
        "dB: shorter bars are worse, 6 dB are one bit.</p>"
        '<p class="key"><span style="background:#1f77b4"></span>the layer alone, on '
        'quantized inputs &nbsp; <span style="background:#b9cfe2"></span>with all '
        "layers before it</p>"
    )
    yield _table(
        ["layer", "operator", "#alone", "#in all", ""],
        [
            (
                _text(row["layer"]),
                _text(row["operator"]),
                "" if row["own_snr_db"] is None else f"{row['own_snr_db']:.1f}",
                f"{row['snr_db']:.1f}",
                bars(row),
            )
            for row in errors
        ],
        safe=True,
    )


def _operators(operators):
    most = max([row["constant_bytes"] for row in operators], default=0) or 1

    def bar(row):
        width = 100 * row["constant_bytes"] / most
        return (
            '<svg viewBox="0 0 100 8" height="8" preserveAspectRatio="none">'
            f'<rect class="own" height="8" width="{width:.2f}"/></svg>'
        )

    yield "<h2>Operators and their size</h2>"
    yield _table(
        ["operator", "#version", "#count", "#multiply-adds", "since", "#bytes", ""],
        [
            (
                _text(row["name"]),
                str(row["version"]),
                str(row["count"]),
                f"{row['multiply_adds']:,}",
                _text(row["oldest_runtime"] or "unknown"),
                f"{row['constant_bytes']:,}",
                bar(row),
            )
            for row in operators
        ],
        safe=True,
    )


def _table(heads, rows, safe=False):
    """Returns a table; a head that begins with # is that of numbers.

    Cells are text, or HTML where they are `safe`.
    """
    classes = ["number" if head.startswith("#") else "" for head in heads]
    if heads and not heads[-1]:
        classes[-1] = "bars"

    def line(tag, cells):
        kinds = classes or [""] * len(cells)
        return "".join(
            f'<{tag} class="{kind}">{cell}</{tag}>'
            if kind
            else f"<{tag}>{cell}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    lines = [line("th", [_text(head.lstrip("#")) for head in heads])] if heads else []
    lines += [
        line("td", row if safe else [_text(cell) for cell in row]) for row in rows
    ]
    return "<table>" + "".join(f"<tr>{each}</tr>\n" for each in lines) + "</table>"


def _text(value):
    return escaping.escape(str(value))
