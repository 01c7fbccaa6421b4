"""Runs pushed to a hub on this machine, and loaded back from it."""

import hashlib
import json
import shutil
import socket

import huggingface_hub
import keras
import numpy as np
import pytest
from huggingface_hub import constants as hub_constants

import keras_resnet
from keras_resnet.runner.errors import UserError
from keras_resnet.sharing import card, contents
from keras_resnet.training.runs.run import Run
from tests.helpers.commands import one_error, run_python
from tests.helpers.hub import TOKEN, Hub, commit_hash

REPO = "somebody/digits"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub()
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    # huggingface_hub waits between its retries.
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    yield hub
    hub.shutdown()
    hub.server_close()


@pytest.fixture
def run(digits_run, export, tmp_path):
    """A copy of the run with one export, that of quantization-aware training."""
    folder = tmp_path / "digits"
    shutil.copytree(
        digits_run, folder, ignore=shutil.ignore_patterns("model-[!q]*.tflite")
    )
    return folder


def front_matter(text):
    return huggingface_hub.ModelCard(text).data


def test_a_run_is_pushed_in_one_commit_and_loads_back(hub, run, held_out):
    address = keras_resnet.push(run, REPO, license="mit")
    (files,) = hub.repositories[REPO]
    assert address == f"hf://{REPO}@{commit_hash(0)}"
    assert sorted(files) == sorted(
        "README.md SHA256SUMS assets/keras_resnet.json config.json labels.txt "
        "metadata.json model-qat.tflite model.keras model.weights.h5".split()
    )
    for name in ("model.keras", "model-qat.tflite"):
        assert files[name] == (run / name).read_bytes()
    assert files["labels.txt"].decode().split() == [str(i) for i in range(10)]
    for line in files["SHA256SUMS"].decode().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256(files[name]).hexdigest() == digest
    original = keras_resnet.load(run)
    images = original.preprocessing.normalize(held_out[0][:8])
    expected = original.predict(images, verbose=0)
    for source in (f"hf://{REPO}", address):
        model = keras_resnet.load(source)
        np.testing.assert_array_equal(model.predict(images, verbose=0), expected)
        assert (model.labels, model.preprocessing) == (
            original.labels,
            original.preprocessing,
        )
        again = keras_resnet.ResNet8(weights=source)
        np.testing.assert_array_equal(again.predict(images, verbose=0), expected)
        assert again.labels == original.labels


def test_keras_alone_opens_what_was_pushed(hub, run, monkeypatch):
    keras_resnet.push(run, REPO)
    folder = run.parent / "snapshot"
    for name, content in hub.files(REPO).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    # What `keras.saving.load_model("hf://...")` downloads.
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download", lambda **arguments: str(folder)
    )
    model = keras.saving.load_model(f"hf://{REPO}")
    expected = keras_resnet.load(run).get_weights()
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_revision_names_an_older_push(hub, run):
    first = keras_resnet.push(run, REPO)
    model = keras_resnet.load(run)
    old = model.get_layer("predictions").bias.numpy()
    model.get_layer("predictions").bias.assign(old + 1)
    model.save(run / "model.keras")
    for path in run.glob("*.tflite"):
        path.unlink()
    second = keras_resnet.push(run, REPO)
    # The file that is gone would contradict the new card.
    assert "model-qat.tflite" not in hub.files(REPO)
    for address, bias in ((first, old), (second, old + 1)):
        loaded = keras_resnet.load(address).get_layer("predictions").bias
        np.testing.assert_array_equal(loaded, bias)


def test_a_loaded_run_is_downloaded_once(hub, run):
    keras_resnet.push(run, REPO)
    keras_resnet.load(f"hf://{REPO}")
    hub.requests.clear()
    keras_resnet.load(f"hf://{REPO}")
    assert hub.requests == []


def test_a_damaged_download_is_refused(hub, run):
    keras_resnet.push(run, REPO)
    hub.repositories[REPO][0]["model.keras"] += b"0"
    with pytest.raises(UserError, match="another hash than SHA256SUMS.*Received"):
        keras_resnet.load(f"hf://{REPO}")


@pytest.mark.parametrize(
    "files", [{}, {"config.json": b'{"class_name": "Functional"}'}], ids=["", "keras"]
)
def test_a_repository_of_others_is_refused_in_one_line(hub, files):
    hub.repositories[REPO] = [files]
    for load in (keras_resnet.load, lambda x: keras_resnet.ResNet8(weights=x)):
        with pytest.raises(UserError, match=f"{REPO}.*Received") as error:
            load(f"hf://{REPO}")
        assert "\n" not in str(error.value)


# --- The card -------------------------------------------------------------------------


def test_the_card_says_what_the_files_of_the_run_say(run):
    found = contents.of_run(run)
    text = card.text(found, REPO, "apache-2.0")
    metrics = json.loads((run / "metrics.json").read_text())
    config = json.loads((run / "config.json").read_text())
    report = json.loads((run / "model-qat.report.json").read_text())
    about = front_matter(text)
    assert (about.license, about.library_name) == ("apache-2.0", "keras")
    assert (about.pipeline_tag, about.metrics) == ("image-classification", ["accuracy"])
    (result,) = about.eval_results
    assert result.metric_value == pytest.approx(metrics["top1"], abs=1e-6)
    assert result.dataset_name == "digits"
    assert f"| `model.keras` | top-1 | {metrics['top1']:.2%} | 360 |" in text
    compared = report["compared"]
    assert f"| `model-qat.tflite` | top-1 | {compared['top1']:.2%} (" in text
    for name, value in (
        ("input_size", "32, 32"),
        ("mean_rgb_255", "128, 128, 128"),
        ("epochs", str(config["recipe"]["epochs"])),
        ("optimizer", "sgd"),
        ("keras", keras.__version__),
    ):
        assert f"| `{name}` | {value} |" in text
    worst = min(metrics["by_class"].values(), key=lambda x: x["right"] / x["examples"])
    rows = text.partition("| class |")[2].splitlines()
    assert rows[2].endswith(f"| {worst['right'] / worst['examples']:.2%} |")


def test_what_is_not_known_is_left_out_of_the_card(run):
    for path in run.glob("*.tflite"):
        path.unlink()
    text = card.text(contents.of_run(run), REPO)
    assert "license" not in front_matter(text).to_dict()
    assert "## Licence" not in text and "None" not in text and ".tflite" not in text


def test_folders_of_this_machine_are_not_in_the_card(run, tmp_path):
    config = json.loads((run / "config.json").read_text())
    config["settings"] |= {"dataset": "folder", "data_dir": str(tmp_path / "pho|tos")}
    (run / "config.json").write_text(json.dumps(config))
    text = card.text(contents.of_run(run), REPO)
    assert str(tmp_path) not in text
    assert "# resnet8 on pho\\|tos\n" in text


# --- What is refused ------------------------------------------------------------------


def refused(hub, run, *parts, repo=REPO, **arguments):
    with pytest.raises(UserError) as error:
        keras_resnet.push(run, repo, **arguments)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message
    assert not any(commits for commits in hub.repositories.values())


@pytest.mark.parametrize("repo", ["digits", "a/b/c", "a/b@c", "a/..", "a/ b", "", 3])
def test_a_malformed_repository_is_refused(hub, run, repo):
    refused(hub, run, "--repo", f"Received: {repo!r}", repo=repo)
    assert hub.requests == []


def test_no_token_names_how_to_get_one(hub, run, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(hub_constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    refused(hub, run, "hf auth login", "HF_TOKEN")
    assert hub.requests == []


def test_a_wrong_token_and_a_refusal_are_one_line(hub, run, monkeypatch):
    hub.refused = "/commit/"
    refused(hub, run, "no file was pushed", REPO, "403")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    refused(hub, run, "no file was pushed", REPO, "401")


def test_an_unknown_licence_is_refused_before_a_file_is_uploaded(hub, run):
    refused(hub, run, "must be one of apache-2.0", license="cc0")
    assert not hub.objects


def test_no_hub_is_one_line(hub, run, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    refused(hub, run, "no file was pushed", f":{port}/{REPO}")


def test_a_folder_that_is_no_finished_run_is_refused(hub, run, tmp_path):
    refused(hub, tmp_path, "holds no run")
    (run / "metrics.json").unlink()
    refused(hub, run, "has not ended")
    assert hub.requests == []


def test_an_export_of_another_model_is_refused(hub, run, tmp_path):
    model = keras_resnet.load(run)
    model.save(run / "model.keras")  # the same weights in another file
    shutil.rmtree(run / "qat")
    refused(hub, run, "export the run again", "model-qat.tflite")
    other = tmp_path / "other.tflite"
    (run / "model-qat.tflite").rename(other)
    refused(hub, run, "export the run again", "other.tflite", tflite=[other])
    refused(hub, run, "cannot be read", "no.tflite", tflite=["no.tflite"])


def test_an_export_from_elsewhere_is_pushed_when_named(hub, run, tmp_path):
    (run / "model-qat.tflite").rename(tmp_path / "digits.tflite")
    keras_resnet.push(run, REPO, tflite=[tmp_path / "digits.tflite"])
    assert "digits.tflite" in hub.files(REPO)


def test_weights_for_non_commercial_use_keep_their_licence(hub, run):
    model = keras_resnet.load(run)
    vars(model)["licence"] = "cc-by-nc-4.0"
    model.save(run / "model.keras")
    (run / "model-qat.tflite").unlink()
    refused(hub, run, "--license=cc-by-nc-4.0", license="mit")
    keras_resnet.push(run, REPO, license="cc-by-nc-4.0")
    assert b"\nlicense: cc-by-nc-4.0\n" in hub.files(REPO)["README.md"]


def test_a_model_that_needs_code_is_refused(hub, run):
    config = json.loads((run / "config.json").read_text())
    config["settings"]["allow_lambda"] = True
    (run / "config.json").write_text(json.dumps(config))
    refused(hub, run, "needs Python code")


def test_the_run_of_a_fine_tuning_stands_for_its_run(run):
    assert contents.of_run(run / "qat").run == Run.open(run)


def test_the_command_pushes_and_refuses(hub, run):
    flags = ("push", f"--model={run}", f"--repo={REPO}")
    environment = {"HF_HUB_DISABLE_XET": "1", "HF_TOKEN": TOKEN}
    done = run_python("-m", "keras_resnet", *flags, **environment)
    assert done.returncode == 0, done.stderr
    assert f"hf://{REPO}@{commit_hash(0)}" in done.stdout
    assert hub.files(REPO)["model.keras"] == (run / "model.keras").read_bytes()
    done = run_python("-m", "keras_resnet", *flags[:2], "--repo=digits")
    assert "--repo must be user/name" in one_error(done)


@pytest.mark.parametrize(
    "task, name, tag, measure, row",
    [
        ("detect", "ap50", "object-detection", "mAP50", "AP50"),
        ("segment", "miou", "image-segmentation", "mean IoU", "IoU"),
    ],
)
def test_the_card_of_boxes_and_masks_has_their_measures(
    scene_runs, task, name, tag, measure, row
):
    run = scene_runs[task]
    text = card.text(contents.of_run(run), REPO)
    assert front_matter(text).pipeline_tag == tag
    (line,) = [line for line in text.splitlines() if f"| {measure}" in line]
    assert f"{run.metrics[name]:.2%}" in line
    assert f"| {row} |" in text
