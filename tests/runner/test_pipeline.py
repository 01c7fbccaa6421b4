"""Images are decoded ahead, and the results keep their order."""

import threading
import time

import numpy as np

from keras_resnet.runner import Classifier, UserError, runtime
from keras_resnet.runner.pipeline import map_ahead, run_all
from keras_resnet.runner.supervisor import SharedState
from tests.helpers.runner import LABELS, classify, fill


def test_results_keep_the_order_whatever_takes_longer():
    def slowly(number):
        time.sleep(0.02 if number % 3 == 0 else 0)
        return number * number

    state = SharedState()
    found = list(map_ahead(slowly, list(range(40)), state))
    assert found == [(number, number * number) for number in range(40)]
    assert state.overlapping


def test_pictures_are_decoded_by_others_and_only_some_ahead():
    started, most = [], 0
    main = threading.current_thread()

    def load(number):
        assert threading.current_thread() is not main
        started.append(number)
        return number

    for number, _ in map_ahead(load, list(range(200)), SharedState()):
        time.sleep(0.001)
        most = max(most, len(started) - number)
    assert sorted(started) == list(range(200))
    assert 1 < most <= 3 * runtime.default_threads() + 2


def test_one_picture_needs_no_thread():
    main = threading.current_thread()
    state = SharedState()
    found = map_ahead(lambda _: threading.current_thread(), ["a"], state)
    assert list(found) == [("a", main)] and not state.overlapping


def test_overlapped_results_equal_single_ones(models, tmp_path):
    folder = fill(tmp_path, mixed="rgbrgbrgb" * 3)
    (folder / "mixed" / "5bad.png").write_bytes(b"")
    paths = sorted(map(str, (folder / "mixed").glob("*")))
    classifier = Classifier(models["full"])
    found = dict(run_all(paths, classifier, SharedState()))
    assert list(found) == paths
    for path, result in found.items():
        if path.endswith("bad.png"):
            assert isinstance(result, UserError)
        else:
            expected = classify(path, classifier).answer
            np.testing.assert_array_equal(result.answer, expected)
    assert classifier.labels == LABELS
