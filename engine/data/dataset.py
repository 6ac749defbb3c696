"""What a loader reads from: anything with a length and items, or whole arrays that are indexed a batch at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import Array, as_format
from ulpgrad.tensor import Tensor

Item = TypeVar("Item", covariant=True)
SPLITS = ("train", "test")


class Dataset(Protocol[Item]):
    """A sized collection of items, numbered from 0."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Item: ...


class ArrayDataset:
    """Arrays of equal length whose rows belong together: `ArrayDataset(images, labels)`.

    Item i is the tuple of their rows i; a slice or an integer array of indices gives a batch at once. `transform` maps
    a batch of the first array (in NumPy) to what is handed out, so that images can stay 8-bit until they are used.
    Batches are copies. Raises ShapeError where lengths differ.
    """

    def __init__(self, *arrays: Tensor | Array, transform: Callable[[Array], Array] | None = None) -> None:
        self.arrays = tuple(to_tensor(a) for a in arrays)
        self.transform = transform
        if not arrays or any(a.ndim == 0 for a in self.arrays):
            raise ShapeError("ArrayDataset: expected at least one array, each with a first axis of items")
        lengths = [len(a) for a in self.arrays]
        if len(set(lengths)) > 1:
            raise ShapeError(f"ArrayDataset: arrays have different lengths: {', '.join(map(str, lengths))}")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        rows = [Tensor(_copied(a.storage, index), a.dtype) for a in self.arrays]
        if self.transform is not None:
            single = rows[0].ndim < self.arrays[0].ndim
            given = rows[0].numpy()
            made = self.transform(given[None])[0] if single else self.transform(given)
            rows[0] = to_tensor(made)
        return tuple(rows)


def _copied(array: Array, index: Any) -> Array:
    """The rows of an index, in memory of their own."""
    if isinstance(index, np.ndarray) and index.dtype.kind in "iu":
        return array.take(index, axis=0)
    return np.array(array[index])


@dataclass(frozen=True)
class Normalize:
    """The transform (x / full_scale - mean) / std in float32; mean and std have a value, or one for each channel of
    [n, channels, h, w]."""

    full_scale: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, x: Array) -> Array:
        out = np.divide(x, self.full_scale, dtype=np.float32)
        if self.mean:
            out -= np.array(self.mean, np.float32).reshape(-1, 1, 1)
            out /= np.array(self.std, np.float32).reshape(-1, 1, 1)
        return out


def to_tensor(value: Any) -> Tensor:
    """A Tensor over an array's memory; Python numbers and nested sequences become arrays first."""
    if isinstance(value, Tensor):
        return value.detach()
    array = np.asarray(value)
    if not hasattr(value, "dtype") and array.dtype == np.float64:
        array = array.astype(np.float32)  # Python floats
    form = as_format(array.dtype)
    return Tensor(array if form.is_native else array.view(form.storage), form)


def check_split(name: str, split: str) -> None:
    """ArgumentError unless `split` is one there is."""
    if split not in SPLITS:
        raise ArgumentError(f"{name}: split={split!r}: expected 'train' or 'test'")
