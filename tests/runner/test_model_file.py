"""What is read of a model file, and how little of it is trusted."""

import pathlib
import struct
import textwrap

import pytest
from ai_edge_litert import schema_py_generated as schema

from keras_resnet.runner import Classifier, Preprocessing, UserError, model_file
from tests.helpers import metadata_reader as desktop
from tests.helpers.runner import (
    HEIGHT,
    LABELS,
    PEERS,
    PREPROCESSING,
    SHIPPED,
    WIDTH,
    assert_one_error,
    metadata,
    run_beside_the_file,
    with_archive,
    with_metadata,
)


def test_the_model_carries_its_labels_and_preprocessing(models):
    classifier = Classifier(models["full"])
    assert classifier.labels == LABELS
    how = classifier.preprocessing
    assert how == Preprocessing(
        PREPROCESSING["input_size"],
        (0.0, 0.0, 0.0),
        (1.0, 1.0, 1.0),
        crop_fraction=PREPROCESSING["crop_fraction"],
        interpolation=PREPROCESSING["interpolation"],
    )
    assert how.resize_size == PREPROCESSING["resize_size"]


@pytest.mark.parametrize(
    "text, labels",
    [
        ("a\nb\nc", ["a", "b", "c"]),
        ("\ufeffa\r\nb c \r\nc\r\n\n\n", ["a", "b c", "c"]),
        ("0  a\n1  b, c\n2  d", ["a", "b, c", "d"]),
        ("2: c\n0: a\n1: b", ["a", "b", "c"]),
        ("7 up\n0 proof\n1 euro", ["7 up", "0 proof", "1 euro"]),
        ("0\n1\n2", ["0", "1", "2"]),
        ("a\n\nc", ["a", "", "c"]),
    ],
)
def test_labels_are_read_in_both_forms(models, tmp_path, text, labels):
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert Classifier(models["full"], str(tmp_path / "labels.txt")).labels == labels


def test_labels_that_do_not_fit_are_refused(models, capfd, tmp_path, pictures):
    file = tmp_path / "labels.txt"
    for text in (b"a\nb\n", b"a\nb\nc\nd", b""):
        file.write_bytes(text)
        argv = ["--model", models["full"], "--labels", file, pictures / "r.png"]
        count = len(text.split())
        assert_one_error(capfd, argv, file, f"{count} labels", "3 classes")
    for content, word in ((b"\xff\xfe\0", "utf-8"), (b"x" * 5000000, "larger")):
        file.write_bytes(content)
        assert_one_error(capfd, argv, file, word)
    argv[3] = tmp_path / "none.txt"
    assert_one_error(capfd, argv, "none.txt", "No such file")


def test_embedded_labels_that_do_not_fit_are_refused(models, tmp_path, pictures, capfd):
    plain = pathlib.Path(models["plain"]).read_bytes()
    path = tmp_path / "m.tflite"
    path.write_bytes(with_archive(plain, labels__txt="a\nb\n"))
    argv = ["--model", path, pictures / "r.png"]
    assert_one_error(capfd, argv, path, "2 labels", "3 classes")
    (tmp_path / "l.txt").write_text("a\nb\nc")  # mended from outside
    assert Classifier(str(path), str(tmp_path / "l.txt")).labels == ["a", "b", "c"]


def test_an_archive_is_not_trusted(models, tmp_path, capfd, pictures):
    plain = pathlib.Path(models["plain"]).read_bytes()
    path = tmp_path / "m.tflite"
    damaged = bytearray(with_archive(plain, labels__txt="red\n" * 50))
    damaged[len(plain) + 42] ^= 255
    hostile = {
        "larger": with_archive(plain, labels__txt=bytes(50000000)),
        "JSON object": with_archive(plain, preprocessing__json="[]"),
        "preprocessing.json": with_archive(plain, preprocessing__json="[" * 60000),
        "Expecting": with_archive(plain, preprocessing__json="{"),
        "utf-8": with_archive(plain, preprocessing__json=b"\xff"),
        "archive": bytes(damaged),
    }
    for word, content in hostile.items():
        path.write_bytes(content)
        assert_one_error(capfd, ["--model", path, pictures / "r.png"], path, word)


def test_every_bad_model_is_one_line(models, capfd, tmp_path, pictures):
    contents = {"empty": b"", "text": b"hello, I am no model\n" * 9, "zip": b"PK\3\4"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    cases = {
        tmp_path / "missing.tflite": "No such file",
        tmp_path: "directory",
        "/dev/zero": "device",
        tmp_path / "empty": "0 bytes",
        tmp_path / "text": "not a TFLite model",
        tmp_path / "zip": "not a TFLite model",
        models["two_outputs"]: "1 inputs and 2 outputs",
        models["vector"]: "received [1, 3] of float32",
        models["dense"]: f"received [1, {HEIGHT}, {WIDTH}, 3]",
        models["grey"]: f"received [1, {HEIGHT}, {WIDTH}, 1] of float32",
        models["dynamic"]: "received [1, -1, -1, 3]",
        models["custom"]: "OurOwnOp",
        models["edgetpu"]: "compiled for the Edge TPU",
    }
    for path, word in cases.items():
        assert_one_error(capfd, ["--model", path, pictures / "r.png"], path, word)


def test_a_model_truncated_anywhere_is_refused_before_any_runtime_sees_it(models):
    # tflite-runtime 2.14 dies of a segmentation fault on nearly all of these.
    data = pathlib.Path(models["full"]).read_bytes()
    flatbuffer = len(pathlib.Path(models["plain"]).read_bytes())
    path = pathlib.Path(models["full"]).with_name("cut.tflite")
    lengths = set(range(0, len(data), 7)) | set(range(len(data) - 30, len(data)))
    # A cut right between model and archive leaves a whole model without archive.
    for length in lengths - set(range(flatbuffer, flatbuffer + 4)):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            model_file.read_model(str(path))


def test_a_flatbuffer_that_points_outside_itself_is_refused(models):
    data = pathlib.Path(models["plain"]).read_bytes()
    root = struct.unpack_from("<I", data)[0]
    vtable = root - struct.unpack_from("<i", data, root)[0]
    subgraphs = root + struct.unpack_from("<H", data, vtable + 8)[0]
    target = struct.unpack_from("<I", data, subgraphs)[0]
    changes = {
        (0, "<I", len(data)): "is needed",
        (0, "<I", 2**32 - 4): "is needed",
        (root, "<i", 2**31 - 4): "is needed",
        (vtable, "<H", 3): "bad vtable",
        (vtable, "<H", 0): "bad vtable",
        (vtable + 2, "<H", 2): "bad vtable",
        (vtable + 8, "<H", 60000): "bad field",
        (subgraphs, "<I", target + 1): "misaligned",
        (subgraphs, "<I", 2**31): "is needed",
        (subgraphs + target, "<I", 2**30): "is needed",
    }
    model_file.FlatbufferWalk(data)
    for (position, code, value), message in changes.items():
        damaged = bytearray(data)
        struct.pack_into(code, damaged, position, value)
        with pytest.raises(ValueError, match=message):
            model_file.FlatbufferWalk(bytes(damaged))


def test_damaged_models_never_crash_the_process(models, tmp_path):
    script = """
        import random, sys
        from run_tflite import Classifier, UserError
        source, refused = open(sys.argv[1], "rb").read(), 0
        for seed in range(150):
            rng, data = random.Random(seed), bytearray(source)
            for _ in range(4):
                data[rng.randrange(len(data))] = rng.randrange(256)
            open(sys.argv[2], "wb").write(data)
            try:
                Classifier(sys.argv[2], threads=1)
            except UserError as error:
                assert "\\n" not in str(error)
                refused += 1
        print(refused)
    """
    argv = [models["full"], tmp_path / "m.tflite"]
    result = run_beside_the_file(textwrap.dedent(script), *argv)
    assert (result.returncode, result.stderr) == (0, "")
    assert 10 < int(result.stdout) < 150


def peers():
    """Models of other people, if the development data are here."""
    return sorted(map(str, PEERS.glob("*.tflite")))


def test_both_readers_of_model_files_find_the_same(models, tmp_path):
    """The reader for untrusted files, and the generated classes of the desktop."""
    described = tmp_path / "described.tflite"
    content = metadata([1, 20, 30], [2, 50, 60], [("mine.txt", 2, "")])
    described.write_bytes(with_metadata(models["full"], content, mine__txt="a\nb\nc"))
    paths = [*models.values(), str(SHIPPED), str(described), *peers()]
    labelled = normalized = 0
    for path in paths:
        data = pathlib.Path(path).read_bytes()
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data))
        found = model_file.read_model(path)
        assert found.operators == len(model.subgraphs[0].operators), path
        custom = {code.customCode for code in model.operatorCodes} - {None}
        assert found.custom_operators - {None} == {name.decode() for name in custom}
        about = desktop.read(data)
        names = [name for name in about.files if name.endswith(".txt")]
        expected = about.files[names[0]] if names else None
        assert found.labels == expected, path
        assert found.preprocessing == about.files.get("preprocessing.json"), path
        graph = (about.table.get("subgraph_metadata") or [{}])[0]
        image = (graph.get("input_tensor_metadata") or [{}])[0]
        steps = [unit["options"] for unit in image.get("process_units", ())]
        assert [found.mean, found.std] == (
            [tuple(steps[0]["mean"]), tuple(steps[0]["std"])] if steps else [None] * 2
        ), path
        labelled, normalized = labelled + bool(names), normalized + bool(steps)
    assert labelled >= 3 and normalized >= 2


def test_labels_are_the_file_that_the_metadata_names(models, tmp_path, capfd, pictures):
    path, text = tmp_path / "m.tflite", "\n".join(LABELS)
    files = [("other.txt", 1, ""), ("de.txt", 2, "de"), ("mine.txt", 2, "")]
    content = metadata([0], [1], files)
    archive = {"other__txt": "x", "de__txt": "a\nb\nc", "mine__txt": text}
    path.write_bytes(
        with_metadata(models["plain"], content, labels__txt="q\nr\ns", **archive)
    )
    assert Classifier(str(path)).labels == LABELS
    archive["mine__txt"] = "a\nb\n"
    path.write_bytes(with_metadata(models["plain"], content, **archive))
    argv = ["--model", path, pictures / "r.png"]
    assert_one_error(capfd, argv, "2 labels for a model of 3 classes")
