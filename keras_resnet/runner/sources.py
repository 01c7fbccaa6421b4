"""Sources of images: files, folders, patterns, a watched folder, a camera."""

import contextlib
import importlib
import itertools
import os
import re
import time

from keras_resnet.runner.errors import UserError, user_errors
from keras_resnet.runner.pipeline import milliseconds_since
from keras_resnet.runner.runtime import silenced_stderr

SUFFIXES = tuple(".jpg .jpeg .png .bmp .gif .tif .tiff .webp .heic .heif".split())
WATCH_SECONDS = 0.5
PI_CAMERA = "the camera module of a Raspberry Pi is --camera=picamera"


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
            before, below = messages.errors, find_images_below(argument, messages)
            if not below and messages.errors == before:
                suffixes = " ".join(SUFFIXES)
                messages.error(f"{argument}: no image in this folder ({suffixes})")
            found += below
        else:
            found.append(argument)
    return found


def find_images_below(root, messages):
    """Lists the image files of a folder, at all levels, sorted."""
    found, visited = [], set()
    walk = os.walk(root, onerror=messages.error, followlinks=True)
    for folder, subfolders, names in walk:
        real_folder = os.path.realpath(folder)
        if real_folder in visited:
            del subfolders[:]
            continue
        visited.add(real_folder)
        found += [os.path.join(folder, name) for name in names if is_image(name)]
    return sorted(found)


def class_folders(root):
    """Returns the names of the folders in a folder, which name classes, sorted.

    Raises:
        UserError: there is none.
    """
    with user_errors(root, OSError):
        names = sorted(
            entry.name
            for entry in os.scandir(root)
            if entry.is_dir() and not entry.name.startswith(".")
        )
    if not names:
        raise UserError(f"{root}: expected a folder for each class, found none")
    return names


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


def camera_frames(camera):
    """Yields ("camera N frame M", PIL image, milliseconds that it took) without end.

    Args:
        camera: a number of OpenCV's, or "picamera", the Pi's camera module.

    Raises:
        UserError: the package or the camera is missing, or the camera stopped.
    """
    from PIL import Image

    frames = picamera_frames() if camera == "picamera" else opencv_frames(camera)
    start = time.perf_counter()
    with contextlib.closing(frames):
        for number, pixels in enumerate(frames):
            image = Image.fromarray(pixels)
            yield f"camera {camera} frame {number}", image, milliseconds_since(start)
            start = time.perf_counter()


def opencv_frames(number):
    """Yields RGB pixels, uint8 (height, width, 3), of a camera that OpenCV opens."""
    hint = f"--camera={number} needs OpenCV (pip install opencv-python); {PI_CAMERA}"
    with user_errors(hint, ImportError):
        cv2 = importlib.import_module("cv2")
    with silenced_stderr():
        capture = cv2.VideoCapture(number)
    try:
        for frame in itertools.count():
            captured, pixels = capture.read()
            if not captured:
                what = "stopped" if frame else "cannot be opened"
                raise UserError(
                    f"camera {number}: {what}; is it plugged in, and may you read "
                    f"/dev/video{number}? ({PI_CAMERA})"
                )
            yield pixels[..., ::-1].copy()  # OpenCV's blue is first
    finally:
        capture.release()


def picamera_frames():
    """Yields RGB pixels, uint8 (480, 640, 3), of the Pi's camera by picamera2."""
    hint = "--camera=picamera needs picamera2 (sudo apt install python3-picamera2)"
    with user_errors(hint, ImportError):
        picamera2 = importlib.import_module("picamera2")
    # picamera2 raises IndexError for no camera, RuntimeError for one in use.
    with user_errors("camera picamera: cannot be opened", IndexError, RuntimeError):
        with silenced_stderr():  # libcamera logs there
            camera = picamera2.Picamera2()
    try:
        with user_errors("camera picamera", RuntimeError, OSError):
            # By libcamera's name; in memory, red comes first.
            main = {"format": "BGR888", "size": (640, 480)}
            camera.configure(camera.create_preview_configuration(main=main))
            camera.start()
        while True:
            with user_errors("camera picamera: stopped", RuntimeError, OSError):
                pixels = camera.capture_array()
            yield pixels
    finally:
        camera.close()
