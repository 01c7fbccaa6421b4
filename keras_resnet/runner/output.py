"""Output: messages on stderr, results on stdout, annotated images."""

import json
import os
import re
import sys
import time

from keras_resnet.runner.errors import printable, user_errors


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


def print_json(path, found, times):
    """Prints the result for one image as a line of JSON.

    Args:
        path: of the image.
        found: dict of what was found in it.
        times: {stage: milliseconds}.
    """
    write_lines(json.dumps(dict({"file": path}, **found, milliseconds=times)))


def print_rows(rows):
    """Prints rows of CSV."""
    import csv  # other outputs need no time for it

    csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
    sys.stdout.flush()


def print_csv_header(columns, stages):
    """Prints the names of the columns that `print_csv` fills."""
    print_rows([["file", *columns, *(f"{stage}_ms" for stage in stages)]])


def print_csv(path, rows, columns, times, stages):
    """Prints the result for one image as rows of CSV, one for each thing in it."""
    spent = [times.get(stage, "") for stage in stages]
    # Where nothing was found, a row says so.
    print_rows([path, *row, *spent] for row in rows or [[""] * len(columns)])


def print_table(path, lines, times):
    """Prints the result for one image for people."""
    spent = ", ".join(f"{name} {value:.1f} ms" for name, value in times.items())
    write_lines("\n".join([f"{printable(path)}  ({spent})", *lines]))


def table_lines(top):
    """Formats predictions, one per line."""
    return [
        f"{score:10.4f}  {index:5d}  {printable(label or '')}".rstrip()
        for index, label, score in top
    ]


def enlarged(image):
    """Returns a copy of an image, in which text is large enough to read.

    Returns:
        (PIL image, by how much its sides were multiplied).
    """
    from PIL import Image

    times = min(256 // min(image.size), 4096 // max(image.size))
    if times > 1:
        size = [times * pixels for pixels in image.size]
        return image.resize(size, Image.NEAREST), times
    return image.copy(), 1


class Pen:
    """Draws text of one size on an image."""

    def __init__(self, image):
        """Takes a PIL image of mode RGB, which is drawn on."""
        from PIL import ImageDraw

        self.draw = ImageDraw.Draw(image)
        self.height = max(10, image.height // 24)
        self._font, self._only_latin = load_font(self.height)

    def write(self, left, upper, score, label):
        """Writes a score from 0 to 1 and a label."""
        text = f"{score:.2f} {printable(label)}"
        if self._only_latin:
            text = text.encode("latin-1", "replace").decode("latin-1")
        self.draw.text((left + 1, upper + 1), text, fill="black", font=self._font)
        self.draw.text((left, upper), text, fill="white", font=self._font)

    def write_list(self, pairs):
        """Writes pairs of score and label below each other, from the upper left."""
        for line, pair in enumerate(pairs):
            upper = self.height // 2 + line * self.height * 5 // 4
            self.write(self.height // 2, upper, *pair)


def save_image(image, path, file_format, **options):
    """Writes an image, whole or not at all."""
    part = f"{path}.part"
    with user_errors(path, OSError, ValueError):
        image.save(part, file_format, **options)
        os.replace(part, path)


def load_font(height):
    """Returns (font of about `height` pixels, whether it has Latin-1 alone)."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype("DejaVuSans.ttf", height), False
    except (OSError, ImportError):  # Pillow's own font has no more
        return ImageFont.load_default(), True


def output_path(folder, number, path, suffix):
    """Names a file for an image; the number keeps equal names apart."""
    name = os.path.splitext(os.path.basename(path))[0]
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:100]
    return os.path.join(folder, f"{number:05d}_{name}{suffix}")
