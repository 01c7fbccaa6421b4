"""A thousand damaged or hostile inputs are one line each."""

import io
import json
import os
import random
import re
import struct
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from keras_resnet.runner import images, model_file
from tests.helpers.runner import (
    assert_one_error,
    assert_reported,
    encoded,
    noise,
    run_alone,
    with_archive,
)

SECONDS = 10  # nothing may take longer


def damaged(data, rng):
    """Change, cut, repeat or insert bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 32))):
        where, kind = rng.randrange(len(data)), rng.randrange(8)
        if kind == 0:
            del data[where:]
        elif kind == 1:
            data[where:where] = data[where : where + rng.randrange(1, 64)]
        elif kind == 2:
            del data[where : where + rng.randrange(1, 64)]
        else:
            extremes = (0, 1, 127, 128, 255, rng.randrange(256))
            data[where] = rng.choice(extremes)
        if len(data) < 2:
            break
    return bytes(data)


def png_of(width, height):
    """A PNG that promises so many pixels and holds few."""
    data = bytearray(encoded(Image.new("RGB", (8, 8)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zipfile.crc32(data[12:29]))
    return bytes(data)


def gif_of(width, height):
    data = bytearray(encoded(Image.new("P", (8, 8)), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def jpeg_of(scans):
    """A progressive JPEG whose last scan comes again and again."""
    data = encoded(Image.fromarray(noise(40, 30)), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return (
        data[:last] + data[last:-2] * (scans - data.count(b"\xff\xda") + 1) + data[-2:]
    )


def sources():
    """One whole picture of each format."""
    image = Image.fromarray(noise(40, 30))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        name.lower(): encoded(image, name)
        for name in ("PNG", "BMP", "GIF", "WEBP", "TIFF")
    }
    pictures["jpg"] = encoded(image, "JPEG", exif=exif, quality=90)
    pictures["jpeg"] = encoded(image.convert("CMYK"), "JPEG", progressive=True)
    return pictures


def fill_with_damaged_pictures(folder, count, seed=0):
    """Write damaged pictures."""
    pictures = sorted(sources().items())
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        suffix, data = pictures[number % len(pictures)]
        (folder / f"{number:04d}.{suffix}").write_bytes(damaged(data, rng))


def fill_with_hostile_files(folder):
    """Write what is worse than damage."""
    bombs = [(10000, 10000), (60000, 60000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1)]
    for number, size in enumerate(bombs):
        (folder / f"bomb{number}.png").write_bytes(png_of(*size))
    (folder / "bomb.gif").write_bytes(gif_of(65535, 65535))
    stretched = encoded(Image.new("L", (60000, 1)), "PNG")
    (folder / "stretched.png").write_bytes(stretched)
    (folder / "scans.jpg").write_bytes(jpeg_of(10000))
    os.mkfifo(folder / "fifo.jpg")
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "dangling.png").symlink_to(folder / "nowhere")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "memory.png").symlink_to("/proc/self/mem")
    (folder / "directory.png").mkdir()
    (folder / "around").symlink_to(folder)
    (folder / "new\nline\x1b[2J.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / os.fsdecode(b"latin-\xe9.png")).write_bytes(b"GIF89a")
    (folder / "-n.png").write_bytes(b"")
    (folder / ("x" * 200 + ".png")).write_bytes(b"BM")


def run_in_time(*argv, **options):
    start = time.monotonic()
    result = run_alone(*argv, timeout=SECONDS * 6, **options)
    return result, time.monotonic() - start


def assert_good_pictures_are_classified(models, folder):
    for name, colour in (("first", (250, 5, 9)), ("last", (5, 9, 250))):
        image = Image.new("RGB", (40, 30), colour)
        image.save(folder / f"{'!' if name == 'first' else 'zz'}{name}.png")
    result = run_alone(f"--model={models['full']}", "--json", folder, timeout=120)
    errors = assert_reported(result)
    records = [json.loads(line) for line in result.stdout.splitlines()]
    labels = {os.path.basename(r["file"]): r["top"][0]["label"] for r in records}
    assert labels["!first.png"] == "red" and labels["zzlast.png"] == "blue"
    named = sum(len(files) for _, _, files in os.walk(folder))
    assert len(records) + len(errors) == named
    assert not [line for line in errors if "native code" in line]
    return len(errors), len(records)


def test_good_pictures_among_hostile_files_are_classified(models, tmp_path):
    fill_with_hostile_files(tmp_path)
    errors, records = assert_good_pictures_are_classified(models, tmp_path)
    assert records == 3  # the two, and the one that is merely long
    assert errors > 10


def test_good_pictures_among_damaged_ones_are_classified(models, tmp_path):
    fill_with_damaged_pictures(tmp_path, 70)
    errors, records = assert_good_pictures_are_classified(models, tmp_path)
    assert errors > 20 and records > 5


@pytest.mark.slow
def test_good_pictures_among_hundreds_of_damaged_ones_are_classified(models, tmp_path):
    fill_with_damaged_pictures(tmp_path, 600, seed=1)
    errors, records = assert_good_pictures_are_classified(models, tmp_path)
    assert errors > 200 and records > 50


def hostile_models(models, count):
    """Yield damaged models: changed bytes, and counts and offsets set to extremes."""
    plain = open(models["plain"], "rb").read()
    full = open(models["full"], "rb").read()
    for number in range(count):
        rng = random.Random(number)
        data = bytearray(rng.choice((plain, full)))
        kind = rng.randrange(3)
        if kind == 0:
            yield damaged(data, rng)
            continue
        for _ in range(rng.choice((1, 2, 8))):
            where = rng.randrange(len(data) // 4) * 4
            near = struct.unpack_from("<i", data, where)[0]
            extremes = (0, -1, 1, near + 4, near - 4, near * 2, 2**31 - 1, 65536, -128)
            value = rng.choice(extremes) & 0xFFFFFFFF
            struct.pack_into("<I", data, where, value)
        yield bytes(data)


def check_models(models, tmp_path, count):
    picture = tmp_path / "picture.png"
    Image.fromarray(noise(40, 30)).save(picture)
    refused = crashed = 0
    for number, data in enumerate(hostile_models(models, count)):
        path = tmp_path / "model.tflite"
        path.write_bytes(data)
        result, seconds = run_in_time(f"--model={path}", "--json", picture)
        assert seconds < SECONDS, number
        assert result.returncode in (0, 2), (number, result.stderr)
        errors = assert_reported(result, result.returncode)
        assert len(errors) == (1 if result.returncode else 0), (number, errors)
        refused += result.returncode == 2
        crashed += any("native code crashed" in line for line in errors)
    return refused, crashed


def test_damaged_models_are_one_line_each(models, tmp_path):
    refused, _ = check_models(models, tmp_path, 25)
    assert 5 < refused < 25


@pytest.mark.slow
def test_hundreds_of_damaged_models_are_one_line_each(models, tmp_path):
    refused, _ = check_models(models, tmp_path, 250)
    assert 50 < refused < 250


def overlapping_vectors(count=20000):
    """A model whose buffers all begin at another byte of one and the same block."""
    root = 24
    data = struct.pack("<I4s", root, b"TFL3")
    data += struct.pack("<7Hxx", 14, 8, 0, 0, 0, 0, 4)  # Model has buffers alone
    data += struct.pack("<iII", root - 8, 4, count)
    first = len(data) + 4 * count
    first += -first % 8
    block = first + 16 * count
    tables = b""
    for number in range(count):
        table = first + 16 * number + 8
        data += struct.pack("<I", table - len(data))
        target = block + 4 * (number % 1000)
        tables += struct.pack("<4HiI", 6, 8, 4, 0, 8, target - table - 4)
    return data.ljust(first, b"\0") + tables + struct.pack("<20000I", *[9000] * 20000)


def test_vectors_that_share_their_bytes_are_refused(models, tmp_path, capfd):
    # Read one by one, they are a gigabyte.
    path = tmp_path / "m.tflite"
    path.write_bytes(overlapping_vectors(1))
    model_file.read_model(str(path))
    path.write_bytes(overlapping_vectors())
    assert_one_error(capfd, [f"--model={path}", "a.png"], "overlapping vectors")


TEXTS = [
    b"",
    b"\xff\xfe\0",
    b"\0" * 100,
    b"a\nb",
    b"a\nb\nc\nd\n",
    b"x" * (5 << 20),
    b"0 a\n0 b\n1 c",
    b"999999999999 a\nb\nc",
    "\u202ered\n\x1b[2J\n\x07".encode(),
    b"a\r\rb\rc",
]


def test_hostile_labels_are_one_line(models, tmp_path):
    Image.fromarray(noise(40, 30)).save(tmp_path / "p.png")
    for number, text in enumerate(TEXTS):
        (tmp_path / "labels.txt").write_bytes(text)
        argv = [f"--model={models['full']}", f"--labels={tmp_path / 'labels.txt'}"]
        result, seconds = run_in_time(*argv, tmp_path / "p.png")
        assert seconds < SECONDS and result.returncode in (0, 2), number
        assert len(assert_reported(result, result.returncode)) == result.returncode // 2
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", result.stdout)


def archives(plain, rng):
    """Yield models whose archive is hostile."""
    yield with_archive(plain, labels__txt=bytes(50 << 20))  # 50 MB in 50 KB
    yield with_archive(plain, preprocessing__json="[" * 60000)
    yield with_archive(plain, preprocessing__json='{"version": 1e999}')
    yield with_archive(plain, preprocessing__json='{"version": ' + "9" * 5000 + "}")
    yield with_archive(plain, **{"../../labels__txt": "a\nb\nc\n"})
    whole = with_archive(plain, labels__txt="a\nb\nc\n", preprocessing__json="{}")
    for _ in range(20):
        tail = damaged(whole[len(plain) :], rng)
        yield plain + tail


def test_hostile_archives_are_one_line(models, tmp_path):
    Image.fromarray(noise(40, 30)).save(tmp_path / "p.png")
    plain = open(models["plain"], "rb").read()
    codes = []
    for number, data in enumerate(archives(plain, random.Random(0))):
        (tmp_path / "m.tflite").write_bytes(data)
        result, seconds = run_in_time(
            f"--model={tmp_path}/m.tflite", tmp_path / "p.png"
        )
        assert seconds < SECONDS and result.returncode in (0, 2), number
        assert len(assert_reported(result, result.returncode)) == result.returncode // 2
        codes.append(result.returncode)
    assert codes[:4] == [2, 2, 2, 2] and 0 in codes[4:]


def test_folders_without_permission_are_told(models, pictures):
    if os.getuid() == 0:
        pytest.skip("root may read everything")
    (pictures / "closed").mkdir(mode=0)
    (pictures / "closed.png").touch(mode=0)
    result = run_alone(f"--model={models['full']}", pictures)
    assert len(assert_reported(result)) == 2


def test_the_standard_input_may_be_hostile(models, pictures):
    argv = [f"--model={models['full']}", "-"]
    for data in (b"", b"no picture", png_of(60000, 60000)):
        file = pictures / "stdin"
        file.write_bytes(data)
        with open(file, "rb") as stdin:
            result = run_alone(*argv, stdin=stdin)
        assert len(assert_reported(result)) == 1
        assert "standard input" in result.stderr


def test_a_jpeg_of_many_scans_is_refused(models, capfd, tmp_path):
    argv = [f"--model={models['full']}", tmp_path / "scans.jpg"]
    (tmp_path / "scans.jpg").write_bytes(jpeg_of(images.MAX_SCANS + 1))
    assert_one_error(capfd, argv, "101 scans, expected at most 100")
    (tmp_path / "scans.jpg").write_bytes(jpeg_of(images.MAX_SCANS))
    result = run_alone(*argv)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_film_behind_a_jpeg_is_no_scan(models, tmp_path):
    data = encoded(Image.fromarray(noise(40, 30)), "JPEG")
    data += np.random.RandomState(0).bytes(16 << 20)
    assert data.count(b"\xff\xda") > images.MAX_SCANS
    (tmp_path / "a.jpg").write_bytes(data)
    result = run_alone(f"--model={models['full']}", tmp_path / "a.jpg")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_huge_model_is_refused(models, tmp_path):
    with open(tmp_path / "huge.tflite", "wb") as file:
        file.write(b"\x1c\0\0\0TFL3")
        file.truncate(1 << 40)  # takes no room on disk
    result = run_alone(f"--model={tmp_path / 'huge.tflite'}", "a.png")
    (error,) = assert_reported(result)
    assert "1099511627776 bytes, a TFLite model has at most 2147483647" in error


def test_noise_is_no_picture(models, tmp_path):
    for number in range(30):
        data = np.random.RandomState(number).bytes(200)
        start = [b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"]
        (tmp_path / f"{number}.png").write_bytes(start[number % 5] + data)
    result = run_alone(f"--model={models['full']}", tmp_path)
    assert (len(assert_reported(result)), result.stdout) == (30, "")


def test_a_reader_of_json_sees_whole_lines_only(models, tmp_path):
    fill_with_damaged_pictures(tmp_path, 20, seed=3)
    result = run_alone(f"--model={models['full']}", "--json", tmp_path)
    for line in io.StringIO(result.stdout):
        assert json.loads(line)["file"]
