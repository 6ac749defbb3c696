"""Scikit-learn's handwritten digits: real data that needs no network, split once and for all."""

from __future__ import annotations

import numpy as np

from ulpgrad.data.dataset import ArrayDataset, Normalize, check_split
from ulpgrad.errors import DataError
from ulpgrad.formats import Array
from ulpgrad.random import Generator

TEST_SIZE = 500
SPLIT_SEED = 0
CLASSES = 10
FULL_SCALE = 16.0  # the images count 0 to 16 dark pixels in each 4 x 4 cell


def digits(split: str = "train", *, standardize: bool = False) -> ArrayDataset:
    """1,797 images of digits: 1,297 to train on, 500 to test. Images float32 [n, 1, 8, 8] in [0, 1], labels int64 [n].

    The split is stratified: each class gives the same share, its images drawn by `Generator(0).permutation`. With
    `standardize`, the training images' mean is taken off and their standard deviation divided out, in both splits.
    Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998, as in scikit-learn.
    Raises DataError if scikit-learn is not installed, ArgumentError for another split.
    """
    check_split("digits", split)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("digits: the images come with scikit-learn: pip install 'ulpgrad[lab]'") from error
    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 1, 8, 8).astype(np.float32)
    labels = labels.astype(np.int64)
    test = stratified(labels, TEST_SIZE, CLASSES, Generator(SPLIT_SEED))
    train = np.setdiff1d(np.arange(len(labels)), test)
    rows = train if split == "train" else test
    if standardize:
        known = images[train] / FULL_SCALE
        transform = Normalize(FULL_SCALE, (float(known.mean()),), (float(known.std()),))
    else:
        transform = Normalize(FULL_SCALE)
    return ArrayDataset(transform(images[rows]), labels[rows])


def stratified(labels: Array, size: int, classes: int, generator: Generator) -> Array:
    """Sorted indices of `size` random items in which each class keeps its share, to within one item."""
    members = [np.flatnonzero(labels == c) for c in range(classes)]
    share = np.array([len(m) for m in members]) * size / len(labels)
    take = np.floor(share).astype(np.int64)
    take[np.argsort(take - share, kind="stable")[: size - take.sum()]] += 1  # the largest remainders are rounded up
    chosen = [m[generator.permutation(len(m))[:k]] for m, k in zip(members, take, strict=True)]
    return np.sort(np.concatenate(chosen))
