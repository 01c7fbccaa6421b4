"""Sources of images: files, folders, patterns, a watched folder, a camera."""

import contextlib
import importlib
import itertools
import os
import re
import time

from keras_resnet.runner.classifier import milliseconds_since
from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.runner.runtime import silenced_stderr

SUFFIXES = tuple(".jpg .jpeg .png .bmp .gif .tif .tiff .webp .heic .heif".split())
WATCH_SECONDS = 0.5


def find_images(arguments, messages):
    """Lists the image files that arguments of the command line stand for.

    Args:
        arguments: list of str. Each is a file, taken as it is; "-", the standard
            input; a pattern that no shell expanded; or a folder: the files with an
            image's suffix at all levels below it, sorted. Links are followed, but no
            folder is visited twice.
        messages: `Messages`, for folders that cannot be read or hold no image.
    """
    found = []
    for argument in arguments:
        if re.search(r"[*?\[]", argument) and not os.path.lexists(argument):
            import glob  # the shell expands most patterns

            matches = sorted(glob.glob(argument, recursive=True))
            if not matches:
                messages.error(f"{argument}: no file matches")
            found += find_images(matches, messages)
        elif os.path.isdir(argument):
            found += find_images_below(argument, messages)
        else:
            found.append(argument)
    return found


def find_images_below(root, messages):
    """Lists the image files of a folder, at all levels, sorted."""
    found, visited, before = [], set(), messages.errors
    walk = os.walk(root, onerror=messages.error, followlinks=True)
    for folder, subfolders, names in walk:
        real_folder = os.path.realpath(folder)
        if real_folder in visited:
            del subfolders[:]
            continue
        visited.add(real_folder)
        found += [os.path.join(folder, name) for name in names if is_image(name)]
    if not found and messages.errors == before:
        suffixes = " ".join(SUFFIXES)
        messages.error(f"{root}: no image in this folder ({suffixes})")
    return sorted(found)


def is_image(name):
    """Tells by its name whether a file in a folder is an image.

    Hidden files are not: macOS puts a file `._photo.jpg` beside each `photo.jpg`.
    """
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def watch(folder):
    """Yields the images that appear in a folder from now on, each once it is whole."""
    seen, growing = None, {}
    while True:
        now = {}
        with user_errors(folder, OSError):
            for entry in os.scandir(folder):
                with contextlib.suppress(OSError):  # deleted in the meantime
                    if is_image(entry.name):
                        status = entry.stat()
                        now[entry.path] = (status.st_mtime_ns, status.st_size)
        seen = now if seen is None else seen
        for path in sorted(now):
            if seen.get(path) != now[path] == growing.get(path):
                seen[path] = now[path]
                yield path
        growing = now
        seen = {path: seen[path] for path in seen if path in now}
        time.sleep(WATCH_SECONDS)


def camera_frames(number):
    """Yields ("camera N frame M", PIL image, milliseconds that it took) without end."""
    from PIL import Image

    with user_errors("--camera needs OpenCV (pip install opencv-python)", ImportError):
        cv2 = importlib.import_module("cv2")
    with silenced_stderr():
        capture = cv2.VideoCapture(number)
    try:
        for frame in itertools.count():
            start = time.perf_counter()
            captured, pixels = capture.read()
            if not captured:
                what = "stopped" if frame else "cannot be opened"
                raise UserError(
                    f"camera {number}: {what}; is it plugged in, and may you read "
                    f"/dev/video{number}?"
                )
            image = Image.fromarray(pixels[..., ::-1].copy())  # OpenCV's blue is first
            yield f"camera {number} frame {frame}", image, milliseconds_since(start)
    finally:
        capture.release()
