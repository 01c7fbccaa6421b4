"""Whether scores can be believed, and what `unknown` costs and brings."""

import numpy as np

BINS = 15
# Shares of the pictures of classes that are known, in the report.
KNOWN = (0.99, 0.98, 0.95, 0.9, 0.8)


def bins(scores, targets):
    """Returns how right the answers are, by their score.

    Args:
        scores: float (examples, classes), probabilities that add up to 1.
        targets: bool, likewise, one of them true for each example.

    Returns:
        (examples, mean score, share of right answers), arrays (BINS,): the answers
        with scores of 0 to 1/15, of 1/15 to 2/15 and so on. Of a bin without examples,
        the last two are 0.
    """
    best = scores.argmax(1)
    rows = np.arange(len(scores))
    sure, right = scores[rows, best], targets[rows, best]
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    means = [
        np.bincount(place, weights, BINS) / np.maximum(counts, 1)
        for weights in (sure, right)
    ]
    return counts, *means


def error(scores, targets):
    """Returns the expected calibration error, a share of 1.

    That is the mean distance of score and share of right answers over the examples, in
    15 bins of the score (Guo et al., "On calibration of modern neural networks", arXiv
    1706.04599, section 2).
    """
    counts, sure, right = bins(scores, targets)
    return float((counts * np.abs(sure - right)).sum() / counts.sum())


def rows(scores, targets):
    """Returns a row for each bin that has examples.

    Rows are dictionaries of "low" and "high" (the scores of the bin), "examples",
    "score" (their mean) and "right" (the share of right answers).
    """
    return [
        dict(low=i / BINS, high=(i + 1) / BINS, examples=count, score=sure, right=right)
        for i, (count, sure, right) in enumerate(
            zip(*(values.tolist() for values in bins(scores, targets)), strict=True)
        )
        if count
    ]


def strangers(scores, targets):
    """Returns how many strangers are answered if so many pictures of classes are known.

    Args:
        scores: float (examples, classes), of which the last class is `unknown`.
        targets: bool, likewise.

    Returns:
        List of (share of the examples of classes that is known, share of the others
        that is answered with a class), one pair for each of `KNOWN`; empty where there
        are no examples of one kind.
    """
    nearness = np.log(np.maximum(scores, 1e-30))
    nearness = nearness[:, :-1].max(1) - nearness[:, -1]
    others = targets[:, -1]
    if others.all() or not others.any():
        return []
    own = np.sort(nearness[~others])
    found = []
    for share in KNOWN:
        least = own[min(int((1 - share) * len(own) + 1e-9), len(own) - 1)]
        found.append(
            (float(np.mean(own >= least)), float(np.mean(nearness[others] >= least)))
        )
    return found
