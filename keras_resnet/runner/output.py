"""Output: messages on stderr, results on stdout, annotated images."""

import json
import os
import re
import sys
import time

from keras_resnet.runner.errors import printable, user_errors

STAGES = ("decode", "resize", "invoke")


class Messages:
    """Prints on stderr: one line per error or warning, and the progress.

    Attributes:
        errors: int, how many there were.
    """

    def __init__(self, quiet=False):
        """Starts without errors; `quiet` counts messages and prints none."""
        self.errors = 0
        self._quiet = quiet
        self._shown = None  # when the progress was shown last

    def error(self, error):
        """Prints an error: an exception or text."""
        self.errors += 1
        self._print(f"error: {printable(error)}")

    def warning(self, text):
        """Prints what a user should know, though the results are right."""
        self._print(f"warning: {printable(text)}")

    def progress(self, done, total, since):
        """Shows on a terminal how many images are finished since a `perf_counter()`."""
        now = time.perf_counter()
        if not sys.stderr or not sys.stderr.isatty():
            return
        if done < total and now - (self._shown or since) < 0.2:
            return
        self._shown = now
        text = f"{done} of {total} images, {done / (now - since):.1f} per second"
        end = "\n" if done == total else ""
        print(f"\r\x1b[K{text}", end=end, file=sys.stderr, flush=True)

    def _print(self, line):
        # A closed stderr is None, for which print would write on stdout.
        if sys.stderr and not self._quiet:
            start = "\r\x1b[K" if self._shown else ""
            print(start + line, file=sys.stderr, flush=True)


def write_lines(text):
    """Prints whole lines at once: native code may end us between two writes."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_json(path, top, times):
    """Prints the result for one image as a line of JSON."""
    record = {"file": path, "top": [one._asdict() for one in top]}
    write_lines(json.dumps(dict(record, milliseconds=times)))


def print_rows(rows):
    """Prints rows of CSV."""
    import csv  # other outputs need no time for it

    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    sys.stdout.flush()


def print_csv_header():
    """Prints the names of the columns that `print_csv` fills."""
    stages = [f"{stage}_ms" for stage in STAGES]
    print_rows([["file", "rank", "index", "label", "score", *stages]])


def print_csv(path, top, times):
    """Prints the result for one image as rows of CSV, one per class."""
    spent = [times.get(stage, "") for stage in STAGES]
    if not top:  # of several possible labels, the image has none
        print_rows([[path, "", "", "", "", *spent]])
    print_rows(
        [path, rank, index, label or "", score, *spent]
        for rank, (index, label, score) in enumerate(top, 1)
    )


def print_table(path, top, times):
    """Prints the result for one image for people."""
    spent = ", ".join(f"{name} {value:.1f} ms" for name, value in times.items())
    write_lines("\n".join([f"{printable(path)}  ({spent})"] + table_lines(top)))


def table_lines(top):
    """Formats predictions, one per line."""
    return [
        f"{score:10.4f}  {index:5d}  {printable(label or '')}".rstrip()
        for index, label, score in top
    ]


def annotate(image, top, path):
    """Writes an image as JPEG, with labels drawn on it, whole or not at all.

    Args:
        image: PIL image of mode RGB.
        top: list of `Prediction`.
        path: of the new file.
    """
    from PIL import Image, ImageDraw

    # A thumbnail is enlarged: text on it would be too small to read.
    times = min(256 // min(image.size), 4096 // max(image.size))
    if times > 1:
        image = image.resize([times * pixels for pixels in image.size], Image.NEAREST)
    else:
        image = image.copy()
    draw, height = ImageDraw.Draw(image), max(10, image.height // 24)
    font, only_latin = load_font(height)
    for line, (index, label, score) in enumerate(top):
        text = f"{score:.2f} {printable(index if label is None else label)}"
        if only_latin:
            text = text.encode("latin-1", "replace").decode("latin-1")
        left, upper = height // 2, height // 2 + line * height * 5 // 4
        draw.text((left + 1, upper + 1), text, fill="black", font=font)
        draw.text((left, upper), text, fill="white", font=font)
    part = f"{path}.part"
    with user_errors(path, OSError, ValueError):
        image.save(part, "JPEG", quality=90)
        os.replace(part, path)


def load_font(height):
    """Returns (font of about `height` pixels, whether it has Latin-1 alone)."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", height), False
    except (OSError, ImportError):  # Pillow's own font has no more
        return ImageFont.load_default(), True


def annotated_path(folder, number, path):
    """Names an annotated image; the number keeps equal names apart."""
    name = os.path.splitext(os.path.basename(path))[0]
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:100]
    return os.path.join(folder, f"{number:05d}_{name}.jpg")
