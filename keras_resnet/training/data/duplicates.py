"""Finds pictures that are there several times: copied, resized or recompressed.

Two pictures are the same where their perceptual hashes are almost equal and their
colours too. Mirrored pictures, crops, and pictures taken one after the other are not
the same.
"""

import imagehash
import numpy as np
import PIL.Image
from scipy import sparse

HASH_SIDE = 16  # a hash has 16 x 16 bits: those of the lowest frequencies
# Copies of photographs differ in at most 16 bits, different photographs in at least 88
# (BUILD_NOTES.md has the measurement).
MAX_BITS = 20
COLOUR_SIDE = 8  # colours are compared on 8 x 8 pixels ...
MAX_LEVELS = 12  # ... by their root mean square difference, after one was brightened
MAX_GAIN = 1.25  # by no more than this factor
# Of pictures with less contrast, as of a blank page, the hash says nothing: their
# colours must be equal.
MIN_LEVELS = 2
# Sides of a picture from which both are computed.
PREVIEW_SIDE = 128
_CHUNK = 1 << 16  # pairs that are compared at a time
# How many bits of each 16-bit number are set; numpy 1 cannot count them.
_ONES = np.unpackbits(np.arange(1 << 16, dtype=np.uint16).view(np.uint8))
_ONES = _ONES.reshape(1 << 16, 16).sum(1).astype(np.uint8)


def look(image):
    """Returns what is compared of a picture.

    Args:
        image: PIL image of mode RGB.

    Returns:
        (bool (256,) the perceptual hash, uint8 (192,) the colours).
    """
    bits = imagehash.phash(image, HASH_SIDE).hash.ravel()
    small = image.resize((COLOUR_SIDE, COLOUR_SIDE), PIL.Image.Resampling.BOX)
    return bits, np.asarray(small).ravel()


def groups(bits, colours):
    """Finds the pictures that are the same.

    Args:
        bits: bool array (pictures, 256), the hashes.
        colours: uint8 array (pictures, 192).

    Returns:
        List of integer arrays, each the sorted indices of pictures that are the same
        one: two or more.
    """
    # Many pictures may be equal, as black frames of a film: they are compared once.
    bytes_of_hash = bits.shape[1] // 8
    looks = np.concatenate([np.packbits(bits, axis=1), colours], axis=1)
    looks, place = np.unique(looks, axis=0, return_inverse=True)
    pairs = _within(np.unpackbits(looks[:, :bytes_of_hash], axis=1), MAX_BITS)
    parts = np.split(pairs, range(_CHUNK, len(pairs), _CHUNK))
    same = [_have_same_colours(*looks[:, bytes_of_hash:][part.T]) for part in parts]
    first, second = pairs[np.concatenate(same)].T
    edges = np.ones(len(first), bool), (first, second)
    graph = sparse.coo_array(edges, (len(looks), len(looks)))
    _, component = sparse.csgraph.connected_components(graph, directed=False)
    component = component[place.ravel()]
    order = np.argsort(component, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(component[order])) + 1)
    return sorted((part for part in parts if len(part) > 1), key=lambda part: part[0])


def _within(bits, most):
    """Returns the pairs (number, 2) of rows that differ in at most so many bits.

    Of `most` + 1 parts of two such rows, at least one is equal: only rows that share
    a part are compared, a small part of all pairs.
    """
    found = [np.empty((0, 2), int)]
    words = np.packbits(bits, axis=1).view(np.uint16)
    for part in range(most + 1):
        # Every 21st bit: neighbouring frequencies are alike in many pictures.
        key = np.packbits(bits[:, part :: most + 1], axis=1)
        _, key = np.unique(key, axis=0, return_inverse=True)
        order = np.argsort(key.ravel(), kind="stable")
        ordered = key.ravel()[order]
        # Each row beside the next one of its key, then the one after that, and so on.
        places = np.arange(len(order))
        step = 1
        while len(places := places[places + step < len(order)]):
            places = places[ordered[places] == ordered[places + step]]
            for at in np.split(places, range(_CHUNK, len(places), _CHUNK)):
                some, others = order[at], order[at + step]
                differing = _ONES[words[some] ^ words[others]].sum(1)
                near = differing <= most
                found.append(np.stack([some[near], others[near]], axis=1))
            step += 1
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _have_same_colours(some, others):
    """Returns for pairs of colours, uint8 (pairs, 192) each, whether they are equal."""
    a, b = some.astype(np.float32), others.astype(np.float32)
    is_flat = np.maximum(_contrast(a), _contrast(b)) < MIN_LEVELS
    # The brightness that fits best, by least squares.
    gain = (a * b).sum(1) / np.maximum((a * a).sum(1), 1)
    gain[is_flat] = 1
    levels = np.sqrt(((a * gain[:, None] - b) ** 2).mean(1))
    is_as_bright = (gain <= MAX_GAIN) & (gain >= 1 / MAX_GAIN)
    return (levels <= np.where(is_flat, 1, MAX_LEVELS)) & is_as_bright


def _contrast(colours):
    """Returns the standard deviation over the pixels of each row, in levels."""
    return colours.reshape(-1, COLOUR_SIDE**2, 3).std(1).max(1)
