"""Datasets in, batches out: the same ones every time."""

import collections
import dataclasses
import io
import shutil
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_resnet.edge.convert import metadata
from keras_resnet.preprocessing import NORMALIZATIONS, Preprocessing
from keras_resnet.runner import Classifier
from keras_resnet.runner.errors import UserError
from keras_resnet.runner.images import read_image
from keras_resnet.runner.pipeline import load_pixels
from keras_resnet.training import recipes
from keras_resnet.training.data import (
    augmentation,
    batching,
    damaged,
    decoding,
    sources,
)
from tests.helpers.commands import ROOT

SMALL = Preprocessing((32, 32))


@pytest.fixture(scope="module")
def digits():
    return sources.load("digits")


RECIPE = recipes.Recipe(
    epochs=2,
    batch_size=100,
    learning_rate=0.1,
    weight_decay=0.0,
    augmentation="pad_crop",
    image_size=32,
)
EVERYTHING = dict(
    policy="rand_augment_7", random_erasing=0.5, mixup=0.2, cutmix=1.0, batch_size=104
)


def train_batches(dataset, seed=0, first_step=0, share=batching.WHOLE, **changes):
    recipe = dataclasses.replace(RECIPE, **changes)
    return batching.train_batches(dataset, SMALL, recipe, seed, first_step, share)


def batches(dataset, **arguments):
    return list(train_batches(dataset, **arguments).as_numpy_iterator())


def equal(some, others):
    return all(
        np.array_equal(a, b)
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def test_digits_are_split_once_and_for_all(digits):
    assert digits.labels == tuple("0123456789")
    assert (digits.train.examples, digits.held_out.examples) == (1437, 360)
    from sklearn.datasets import load_digits

    seen = [
        (tf.io.decode_png(encoded).numpy().tobytes(), int(label))
        for split in (digits.train, digits.held_out)
        for encoded, label in split.read()
    ]
    images, labels = load_digits(return_X_y=True)
    scanned = [
        (np.round(image * 255 / 16).astype(np.uint8).tobytes(), int(label))
        for image, label in zip(images, labels, strict=True)
    ]
    assert collections.Counter(seen) == collections.Counter(scanned)


def test_equal_seeds_give_equal_batches(digits):
    first = batches(digits)
    assert equal(first, batches(digits))
    assert not equal(first, batches(digits, seed=1))


def test_the_global_seed_does_not_change_the_batches(digits):
    before = batches(digits)
    try:
        tf.random.set_seed(7)
        assert equal(before, batches(digits))
    finally:
        tf.random.set_seed(None)


def test_a_resumed_epoch_sees_what_an_unbroken_one_would(digits):
    steps = batching.steps_per_epoch(digits, 100)
    unbroken = batches(digits, epochs=3)
    assert steps == 14 and len(unbroken) == 3 * steps
    for first in (2 * steps, 2 * steps + 5, steps - 1):
        assert equal(unbroken[first:], batches(digits, epochs=3, first_step=first))


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
def test_workers_share_every_batch(digits, changes):
    """Each gets a part of it, in as many pieces as it has replicas."""
    changes = dict(first_step=3) | changes
    whole = batches(digits, **changes)
    parts = [
        batches(digits, share=batching.Share(i, 2, 4), **changes) for i in range(2)
    ]
    pieces = [
        [piece for part in parts for piece in part[2 * n : 2 * n + 2]]
        for n in range(len(whole))
    ]
    together = [tuple(np.concatenate(x) for x in zip(*p, strict=True)) for p in pieces]
    assert equal(whole, together)


def test_workers_share_the_evaluation(digits):
    seen = []
    for index in range(3):
        found = list(
            batching.evaluation_batches(
                digits.held_out, SMALL, 99, batching.Share(index, 3, 3)
            ).as_numpy_iterator()
        )
        assert [len(labels) for _, labels in found] == [33] * 4  # as many for each
        seen += [labels for _, labels in found]
    seen = np.concatenate(seen)
    expected = [int(label) for _, label in digits.held_out.read()]
    assert sorted(seen[seen >= 0]) == sorted(expected)


def prepare(dataset_name, folder, shards=None, **splits):
    """Prepares a dataset of tensorflow-datasets with three classes.

    Args:
        dataset_name: of it.
        folder: to write.
        shards: files of each split; None lets tfds choose.
        splits: lists of (image, label) by the names of the splits.
    """
    import tensorflow_datasets as tfds

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = dataset_name
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {
                "image": tfds.features.Image(shape=(32, 32, 3)),
                "label": tfds.features.ClassLabel(num_classes=3),
            }
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, manager):
            return {name: self._generate_examples(splits[name]) for name in splits}

        def _generate_examples(self, examples):
            for index, (image, label) in enumerate(examples):
                yield index, {"image": image, "label": label}

    Builder(data_dir=folder).download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=shards)
    )


@pytest.fixture(scope="module")
def in_files(tmp_path_factory):
    """A dataset of tensorflow-datasets in four files: {its folder, images}."""
    images = np.random.default_rng(0).integers(0, 256, (402, 32, 32, 3), np.uint8)
    folder = tmp_path_factory.mktemp("tfds")
    examples = [(image, index % 3) for index, image in enumerate(images)]
    prepare("noise", folder, shards=4, train=examples[:400], test=examples)
    return folder, images


@pytest.fixture
def streamed(in_files, monkeypatch):
    """The dataset, as if it were too large for the memory."""
    import tensorflow_datasets as tfds

    monkeypatch.setattr(batching, "CACHE_BYTES", 0)
    monkeypatch.setattr(tfds, "list_builders", lambda **_: ["noise"])
    return sources.load("noise", in_files[0])


def seen(batches):
    """Returns the images of batches as bytes."""
    return collections.Counter(
        image.tobytes() for images, *_ in batches for image in images
    )


def test_repeats_reach_every_example_of_a_large_dataset(streamed, monkeypatch):
    """So many epochs as there are repeats see all of it, also what is read last."""
    monkeypatch.setattr(batching, "SHUFFLE_BUFFER", 16)
    monkeypatch.setattr(
        augmentation, "augment", lambda recipe, preprocessing, image, seed: image
    )
    found = batches(streamed, batch_size=40, epochs=3, repeats=3)
    assert len(found) == 3 * 10
    epochs = [seen(found[start : start + 10]) for start in (0, 10, 20)]
    assert [sum(epoch.values()) for epoch in epochs] == [400] * 3
    together = epochs[0] + epochs[1] + epochs[2]
    assert len(together) >= 399
    # 134, 133 and 133 different ones make 400: one fills up.
    assert sum(count > 3 for count in together.values()) == 1


def test_a_label_beyond_the_classes_is_refused(tmp_path, monkeypatch):
    """As in published test splits that have no labels."""
    import tensorflow_datasets as tfds

    image = np.zeros((32, 32, 3), np.uint8)
    splits = {"train": (0, 1, 2), "test": (0, -1)}
    examples = {name: [(image, n) for n in labels] for name, labels in splits.items()}
    prepare("unlabelled", tmp_path, **examples)
    monkeypatch.setattr(tfds, "list_builders", lambda **_: ["unlabelled"])
    dataset = sources.load("unlabelled", tmp_path)
    with damaged.damaged_images_named(dataset):
        assert len(batches(dataset, batch_size=3, epochs=1)) == 1
        with pytest.raises(UserError, match="of class -1, and classes 0 to 2 only"):
            with damaged.damaged_images_named(dataset):
                list(batching.evaluation_batches(dataset.held_out, SMALL, 2))
    with pytest.raises(UserError, match="of class -1, and classes 0 to 2 only"):
        sources.load("unlabelled", tmp_path, damaged_images="skip")


@pytest.mark.parametrize("repeats", [1, 2])
def test_workers_read_parts_of_a_large_dataset(streamed, repeats, monkeypatch):
    monkeypatch.setattr(
        augmentation, "augment", lambda recipe, preprocessing, image, seed: image
    )
    parts = [
        batches(
            streamed,
            share=batching.Share(i, 2, 4),
            batch_size=80,
            epochs=3,
            repeats=repeats,
        )
        for i in range(2)
    ]
    # Half of a batch for each worker, in a part for each of its two replicas.
    assert [len(part) for part in parts] == [3 * 5 * 2] * 2
    assert {len(images) for part in parts for images, _ in part} == {20}
    first, second = (seen(part[:10]) for part in parts)
    assert not set(first) & set(second)
    assert set((first + second).values()) == {repeats}
    assert len(first) == len(second) == 200 / repeats
    assert not equal(parts[0][:10], parts[0][10:20])  # another order


def test_a_worker_resumes_in_its_part(streamed):
    share = batching.Share(1, 2, 2)
    whole = batches(streamed, share=share, batch_size=80)
    rest = batches(streamed, share=share, batch_size=80, first_step=7)
    assert equal(rest, whole[7:])


def test_a_part_is_read_from_the_files_that_hold_it(in_files, streamed, tmp_path):
    folder = shutil.copytree(in_files[0], tmp_path / "copy")
    files = sorted(folder.rglob("*train.tfrecord*"))
    assert len(files) == 4
    for path in files[2:]:
        path.unlink()
    split = sources.load("noise", folder).train
    with pytest.raises(tf.errors.NotFoundError):
        list(split.read())
    assert len(list(split.part(0, 200))) == 200


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_evaluate_parts_of_a_large_dataset(streamed, in_files, workers):
    found, numbers = collections.Counter(), []
    for index in range(workers):
        share = batching.Share(index, workers, workers)
        part = batching.evaluation_batches(streamed.held_out, SMALL, 99, share)
        part = list(part.as_numpy_iterator())
        numbers.append(len(part))
        for images, labels in part:
            found += seen([[images[labels >= 0]]])
    assert set(numbers) == {5}  # 402 images in batches of 99
    assert set(found.values()) == {1} and sum(found.values()) == 402


def test_epochs_differ_in_order_and_augmentation(digits):
    both = batches(digits, epochs=2)
    assert not equal(both[:14], both[14:])
    labels = [np.concatenate([b[1] for b in half]) for half in (both[:14], both[14:])]
    assert not np.array_equal(*labels)


@pytest.mark.parametrize("changes", [{}, EVERYTHING])
def test_batches_do_not_depend_on_the_number_of_threads(digits, changes):
    found = []
    for threads in (1, 8):
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        made = train_batches(digits, epochs=1, **changes).with_options(options)
        found.append(list(made.as_numpy_iterator()))
    assert equal(*found)


def test_an_epoch_sees_no_example_twice(digits):
    """Without augmentation: a padding of zero shifts nothing."""
    plain = Preprocessing((8, 8))
    seen = [
        image.tobytes()
        for images, _ in batching.train_batches(
            digits, plain, dataclasses.replace(RECIPE, epochs=1, batch_size=1437), 0
        ).as_numpy_iterator()
        for image in images
    ]
    assert len(seen) == 1437


def test_eval_sees_every_example_once(digits):
    found = list(
        batching.evaluation_batches(digits.held_out, SMALL, 100).as_numpy_iterator()
    )
    assert [len(labels) for _, labels in found] == [100, 100, 100, 100]
    expected = [int(label) for _, label in digits.held_out.read()]
    assert np.concatenate([y for _, y in found]).tolist() == expected + 40 * [-1]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_photographs_are_turned_upright_as_on_the_device(file_format):
    scene = np.zeros((6 * 8, 9 * 8, 3), np.uint8)
    scene[:24, :24] = 255
    scene[:8, 40:] = 90
    files = []
    for orientation in range(10):  # 0 and 9 mean nothing
        exif = Image.Exif()
        exif[0x0112] = orientation
        file = io.BytesIO()
        Image.fromarray(scene).save(file, file_format, exif=exif, quality=95)
        files.append(file.getvalue())
    turned = set()
    for file, image in zip(
        files,
        tf.data.Dataset.from_tensor_slices(files).map(decoding.decode),
        strict=True,
    ):
        device = np.asarray(read_image(io.BytesIO(file)).image, np.int32)
        assert image.shape == device.shape
        assert np.abs(np.int32(image) - device).max() <= (
            2 if file_format == "JPEG" else 0
        )
        turned.add(image.numpy().tobytes())
    assert len(turned) == 8


def test_photographs_are_decoded_and_resized_as_on_the_device(shared_data):
    """To a mean difference below a hundredth of a level of 255, on each of them."""
    preprocessing = Preprocessing((224, 224), crop_fraction=0.875)
    paths = sorted((shared_data / "imagenet_sample" / "val").glob("*/*.JPEG"))
    files = [path.read_bytes() for path in paths]
    ours = tf.data.Dataset.from_tensor_slices(files).map(
        lambda file: decoding.resize_and_crop(decoding.decode(file), preprocessing)
    )
    assert len(files) >= 100
    for path, image in zip(paths, ours, strict=True):
        device = as_pil_does(read_image(path).image, preprocessing)
        assert np.abs(np.int32(image) - device).mean() < 0.01


@pytest.mark.parametrize("name", ["resnet8", "resnet14", "resnet20"])
def test_photographs_have_the_same_top1_in_training_and_on_the_device(
    name, shared_data
):
    """99 of 100: large JPEGs are decoded at a fraction of their size on the device."""
    file = ROOT / "models" / f"{name}.cifar10.int8.tflite"
    classifier = Classifier(str(file))
    paths = sorted((shared_data / "imagenet_sample" / "val").glob("*/*.JPEG"))
    files = tf.data.Dataset.from_tensor_slices([path.read_bytes() for path in paths])
    in_training = files.map(
        lambda file: decoding.resize_and_crop(decoding.decode(file), SMALL)
    )
    same, differences = [], []
    for path, image in zip(paths, in_training.as_numpy_iterator(), strict=True):
        pixels, *_ = load_pixels(path, classifier)
        differences.append(np.abs(pixels.astype(int) - image).mean())
        best = (classifier.scores(each).argmax() for each in (pixels, image))
        same.append(len(set(best)) == 1)
    assert len(same) == 100 and sum(same) >= 99
    assert np.mean(differences) < 0.05 and np.max(differences) < 0.5


def test_a_trained_network_sees_the_same_in_training_and_on_the_device(
    shared_data, tmp_path
):
    """MobileNet v1 0.25, an int8 file: one in ten of its answers is nearly a tie."""
    preprocessing = Preprocessing((128, 128), crop_fraction=0.875)
    peer = shared_data / "peers" / "mobilenet_v1_0.25_128_quant.tflite"
    about = metadata.About("MobileNet")
    content = metadata.with_metadata(peer.read_bytes(), None, preprocessing, about)
    file = tmp_path / "mobilenet.tflite"
    file.write_bytes(content)
    classifier = Classifier(str(file))
    assert classifier.preprocessing.resize_size == preprocessing.resize_size
    paths = sorted((shared_data / "imagenet_sample" / "val").glob("*/*.JPEG"))
    files = tf.data.Dataset.from_tensor_slices([path.read_bytes() for path in paths])
    in_training = files.map(
        lambda file: decoding.resize_and_crop(decoding.decode(file), preprocessing)
    )
    decided = 0
    for path, image in zip(paths, in_training.as_numpy_iterator(), strict=True):
        expected = classifier.scores(image)
        actual = classifier.scores(load_pixels(path, classifier)[0])
        second, first = np.sort(expected)[-2:]
        if first - second > 0.03:
            decided += 1
            assert actual.argmax() == expected.argmax(), path
        assert expected[actual.argmax()] >= first - 0.03, path
    assert decided > 70


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_leaves_the_image_as_it_is():
    scene = np.full((6, 9, 3), 70, np.uint8)
    for exif in (b"Exif\0\0", b"Exif\0\0MM\0*\xff\xff\xff\xff", b"Exif\0\0junk" * 9):
        file = io.BytesIO()
        Image.fromarray(scene).save(file, "JPEG", exif=exif)
        assert decoding.decode(file.getvalue()).shape == (6, 9, 3)


@pytest.mark.parametrize("mode", NORMALIZATIONS)
def test_batches_are_normalized_as_the_preprocessing_says(digits, mode):
    preprocessing = Preprocessing((32, 32), **NORMALIZATIONS[mode])
    pixels = [i for i, _ in batching.images(digits.held_out, preprocessing).take(5)]
    batch, _ = next(
        iter(batching.evaluation_batches(digits.held_out, preprocessing, 5))
    )
    np.testing.assert_allclose(
        batch, preprocessing.normalize(np.stack(pixels)), rtol=1e-6, atol=1e-6
    )


def as_pil_does(image, preprocessing):
    """The definition in `Preprocessing`, written with PIL."""
    width, height = image.size
    size, shorter = preprocessing.resize_size, min(width, height)
    method = getattr(Image.Resampling, preprocessing.interpolation.upper())
    image = image.resize((width * size // shorter, height * size // shorter), method)
    crop_height, crop_width = preprocessing.input_size
    left = int(round((image.width - crop_width) / 2))
    top = int(round((image.height - crop_height) / 2))
    return np.asarray(image.crop((left, top, left + crop_width, top + crop_height)))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_evaluation_resizes_and_crops_as_pil_does(shared_data, interpolation):
    preprocessing = Preprocessing(
        (224, 224), crop_fraction=0.875, interpolation=interpolation
    )
    paths = sorted((shared_data / "imagenet_sample" / "val").glob("*/*.JPEG"))[:8]
    for path in paths:
        image = Image.open(path).convert("RGB")
        ours = decoding.resize_and_crop(np.asarray(image), preprocessing)
        theirs = as_pil_does(image, preprocessing)
        difference = np.abs(ours.numpy().astype(int) - theirs)
        assert difference.mean() < 0.25
        # PIL rounds and clips after each of its two passes. Where the kernel is
        # never negative that moves a pixel by one level at most.
        assert interpolation != "bilinear" or difference.max() <= 1


@pytest.mark.parametrize("name", augmentation.AUGMENTATIONS)
def test_augmentation_is_a_pure_function_of_its_seed(name):
    augment, takes_resized = augmentation.AUGMENTATIONS[name]
    image = tf.random.stateless_uniform((32, 32, 3), (0, 0), 0, 256, tf.int32)
    image = tf.cast(image, tf.uint8)
    if not takes_resized:
        image = tf.io.encode_jpeg(image)
    seeds = [tf.constant([3, n], tf.int64) for n in range(8)]
    eager = [augment(image, 32, seed).numpy() for seed in seeds]
    in_graph = tf.data.Dataset.from_tensor_slices(seeds).map(
        lambda seed: augment(image, 32, seed)
    )
    np.testing.assert_array_equal(eager, list(in_graph.as_numpy_iterator()))
    assert len({result.tobytes() for result in eager}) > 4
    assert eager[0].shape == (32, 32, 3) and eager[0].dtype == np.uint8


def scene(height, width):
    """A smooth picture without symmetry, uint8 (height, width, 3)."""
    y, x = np.mgrid[:height, :width] / 20
    waves = [np.sin(x + y / 3), np.cos(y + x / 5), np.sin(x / 2 - y)]
    return np.uint8(128 + 100 * np.stack(waves, -1))


def _as_file(pixels, file_format="JPEG", mode="RGB", orientation=None, **arguments):
    if orientation:
        arguments["exif"] = Image.Exif()
        arguments["exif"][0x0112] = orientation
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, file_format, **arguments)
    return file.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"mode": "L"},
        {"mode": "CMYK"},
        {"orientation": 1},
        {"orientation": 6},
        {"file_format": "PNG", "mode": "RGBA"},
    ],
    ids=str,
)
def test_a_crop_is_the_same_whether_decoded_in_part_or_whole(arguments):
    file = _as_file(scene(375, 500), **arguments)
    whole = tf.io.encode_png(decoding.decode(file))  # a PNG has no short cut
    augment, _ = augmentation.AUGMENTATIONS["random_resized_crop_flip"]

    def crops(encoded):
        seeds = tf.constant([[5, n] for n in range(8)], tf.int64)
        return np.float32([augment(encoded, 64, seed) for seed in seeds])

    ours, theirs = crops(file), crops(whole)
    # In part, the fast DCT is a level off; chroma at the edge of the part is
    # interpolated from one side only.
    assert np.abs(ours - theirs).mean() < 1
    assert np.abs(ours - theirs[::-1]).mean() > 5


def test_crops_of_large_photographs_are_antialiased():
    stripes = np.zeros((600, 600, 3), np.uint8)
    stripes[:, ::2] = 255
    augment, _ = augmentation.AUGMENTATIONS["random_resized_crop_flip"]
    encoded = tf.io.encode_jpeg(stripes, quality=100)
    for n in range(8):
        crop = augment(encoded, 32, tf.constant([0, n], tf.int64))
        assert np.abs(np.float32(crop) - 127.5).max() < 30


@pytest.mark.parametrize("orientation", [None, 1, 6])
@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_exif_is_seen_where_there_is_any(file_format, orientation):
    file = _as_file(scene(20, 30), file_format, orientation=orientation)
    assert bool(decoding.has_exif(file)) == bool(orientation)


def test_calibration_reads_training_images_chosen_by_seed(digits):
    chosen = batching.calibration_images(digits, SMALL, 50, seed=1)
    assert chosen.shape == (50, 32, 32, 3) and chosen.dtype == np.uint8
    train = {i.tobytes() for i, _ in _arrays(digits.train)}
    assert {image.tobytes() for image in chosen} <= train
    again = batching.calibration_images(digits, SMALL, 50, seed=1)
    np.testing.assert_array_equal(chosen, again)
    other = batching.calibration_images(digits, SMALL, 50, seed=2)
    assert not np.array_equal(chosen, other)
    assert len(batching.calibration_images(digits, SMALL, 9999)) == 1437


def _arrays(split):
    return batching.images(split, SMALL).as_numpy_iterator()


def test_what_is_held_out_is_spread_and_not_trained_on(digits):
    """A source may be sorted by class."""
    dataset = sources.load("digits", hold_out=400)
    whole, train, held_out = (
        [(image.numpy(), int(label)) for image, label in split.read()]
        for split in (digits.train, dataset.train, dataset.held_out)
    )
    assert (len(train), len(held_out)) == (1037, 400)
    assert sorted(train + held_out) == sorted(whole)
    assert [whole.index(pair) for pair in held_out[:4]] == [0, 3, 7, 10]


@pytest.fixture
def photos(tmp_path):
    """Ten pictures of two classes, grey and RGBA among them."""
    rng = np.random.default_rng(0)
    for name, modes in (("cat", ("RGB", "L")), ("dog", ("RGB", "RGBA"))):
        (tmp_path / name).mkdir()
        for index in range(5):
            pixels = rng.integers(0, 256, (40, 50, 4), np.uint8)
            mode = modes[index % 2]
            image = Image.fromarray(pixels).convert(mode)
            image.save(tmp_path / name / f"{index}.png")
    return tmp_path


def test_a_folder_of_classes_holds_out_a_fifth(photos):
    dataset = sources.load("folder", photos)
    assert dataset.labels == ("cat", "dog")
    assert (dataset.train.examples, dataset.held_out.examples) == (8, 2)
    parts = [
        {i.tobytes() for i, _ in _arrays(s)} for s in (dataset.train, dataset.held_out)
    ]
    assert len(parts[0]) == 8 and len(parts[1]) == 2 and not parts[0] & parts[1]
    assert sorted(label for _, label in _arrays(dataset.held_out)) == [0, 1]
    images, labels = next(
        iter(
            train_batches(
                dataset, augmentation="random_resized_crop_flip", batch_size=4
            )
        )
    )
    assert images.shape == (4, 32, 32, 3) and labels.shape == (4, 2)


def test_a_folder_with_splits_keeps_them(photos):
    (photos / "train").mkdir()
    (photos / "val").mkdir()
    for name in ("cat", "dog"):
        (photos / "val" / name).mkdir()
        (photos / name / "0.png").rename(photos / "val" / name / "0.png")
        (photos / name).rename(photos / "train" / name)
    dataset = sources.load("folder", photos)
    assert dataset.labels == ("cat", "dog")
    assert (dataset.train.examples, dataset.held_out.examples) == (8, 2)


def test_bad_folders_are_refused(tmp_path, photos):
    for data_dir, reason in (
        (None, "needs --data_dir"),
        (tmp_path / "none", "no folder"),
        (photos / "cat" / "0.png", "no folder"),
        (photos / "cat", "at least two"),
    ):
        with pytest.raises(UserError, match=reason):
            sources.load("folder", data_dir)
    for picture in (photos / "dog").iterdir():
        picture.unlink()
    (photos / "dog").rmdir()
    with pytest.raises(UserError, match="at least two.*'cat'"):
        sources.load("folder", photos)
    for picture in (photos / "cat").iterdir():
        picture.unlink()
    with pytest.raises(UserError, match="at least two"):
        sources.load("folder", photos)


@pytest.mark.parametrize("name", ["empty", ".ipynb_checkpoints", "a[b]"])
def test_a_folder_without_images_is_no_class(photos, name):
    (photos / name).mkdir()
    with pytest.raises(UserError, match="has no images.*remove it or fill it"):
        sources.load("folder", photos)


def test_unknown_dataset_names_the_nearest():
    with pytest.raises(UserError, match="cifar10.*Received: 'cifra10'"):
        sources.load("cifra10")


def test_a_dataset_of_no_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="text, label"):
        sources.load("imdb_reviews", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_dataset_without_network_says_what_to_do(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", no_network)
    with pytest.raises(UserError) as caught:
        sources.load("mnist", tmp_path / "data")
    for part in (str(tmp_path / "data"), "tfds build mnist", "--dataset=digits"):
        assert part in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_proxy_that_does_not_answer_is_no_network(tmp_path, monkeypatch):
    with socket.socket() as closed:  # bound, so nobody else answers
        closed.bind(("localhost", 0))
        proxy = f"http://localhost:{closed.getsockname()[1]}"
        for scheme in ("http", "https"):
            monkeypatch.setenv(f"{scheme}_proxy", proxy)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(UserError, match="cannot be reached .*refused"):
            sources.load("mnist", tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_prepared_cifar10_is_read_without_the_network(shared_data, monkeypatch):
    def no_network(*args, **kwargs):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    dataset = sources.load("cifar10", shared_data / "tfds")
    assert dataset.train.examples == 50_000 and dataset.held_out.examples == 5_000
    assert dataset.labels[:2] == ("airplane", "automobile")
    labels = [int(label) for _, label in dataset.held_out.read()]
    assert collections.Counter(labels) == {label: 500 for label in range(10)}


def test_repeats_are_of_one_batch_and_augmented_differently(monkeypatch, digits):
    """The examples of a batch come so many times each; none is the same picture."""
    recipe = dataclasses.replace(RECIPE, batch_size=12, repeats=3)

    def numbered(image, size, seed):
        number = tf.cast([seed[1] // 256, seed[1] % 256, 0], tf.uint8)
        return tf.fill((size, size, 1), tf.constant(1, tf.uint8)) * number

    monkeypatch.setitem(augmentation.AUGMENTATIONS, "pad_crop", (numbered, True))
    raw = Preprocessing((32, 32), **NORMALIZATIONS["raw"])
    batches = batching.train_batches(digits, raw, recipe, seed=0)
    found = list(batches.take(50).as_numpy_iterator())
    assert len(found) == 50
    for images, targets in found:
        labels = targets.argmax(-1).reshape(3, 4)
        assert (labels == labels[0]).all()
        assert len(np.unique(images[:, 0, 0], axis=0)) == 12
