"""What each of several workers reads of every batch."""

import collections

import numpy as np
import pytest

from keras_resnet.training.data import augmentation, batching
from tests.helpers.datasets import EVERYTHING, SMALL, batches, equal, seen


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


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_evaluate_parts_of_a_large_dataset(streamed, workers):
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
