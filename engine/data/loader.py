"""Batches in a fresh, repeatable order each epoch: every pass draws one permutation from the loader's generator."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ulpgrad.data.dataset import ArrayDataset, Dataset, to_tensor
from ulpgrad.device import Device, as_device
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import Array
from ulpgrad.generator import Generator, generator_or_default
from ulpgrad.tensor import Tensor


class DataLoader:
    """Iterate over a data set in batches: `for images, labels in DataLoader(data, 64, shuffle=True, seed=0)`.

    - `batch_size`: items in a batch; the last one is smaller, or left out with `drop_last`.
    - `shuffle`: a new order each pass, from `Generator(seed)`, a given `generator`, or the default one. The same seed
      gives the same sequence of passes; save `loader.generator.get_state()` with a checkpoint to go on with it.
    - `device`: where batches are handed out; each is copied there whole.
    - `collate(items)` makes a batch of a list of items. The default stacks numbers, arrays and Tensors, inside tuples
    and
      dicts too; an `ArrayDataset` is indexed a whole batch at once instead, unless `collate` is given.

    `len()` is the number of batches. Raises ArgumentError for a batch size below 1, or for both seed and generator;
    ShapeError for items that do not stack.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        *,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int | None = None,
        generator: Generator | None = None,
        collate: Callable[[list[Any]], Any] | None = None,
        device: Any = None,
    ) -> None:
        try:
            self.batch_size = operator.index(batch_size)
        except TypeError:
            self.batch_size = 0
        if self.batch_size < 1:
            raise ArgumentError(f"DataLoader: batch_size={batch_size!r}: expected a whole number of at least 1")
        if seed is not None and generator is not None:
            raise ArgumentError("DataLoader: seed and generator exclude each other: give one")
        self.dataset = dataset
        self.shuffle, self.drop_last, self.collate = shuffle, drop_last, collate
        self.device = None if device is None else as_device(device)
        own = None if seed is None else Generator(seed)
        self.generator = own or generator_or_default("DataLoader", generator)

    def __len__(self) -> int:
        n = len(self.dataset)
        return n // self.batch_size if self.drop_last else -(-n // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        n = len(self.dataset)
        order = self.generator.permutation(n) if self.shuffle else None
        return self._batches(n, order)

    def _batches(self, n: int, order: Array | None) -> Iterator[Any]:
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            rows = slice(start, min(start + self.batch_size, n))
            if isinstance(self.dataset, ArrayDataset) and self.collate is None:
                batch = self.dataset[rows if order is None else order[rows]]
            else:
                indices = range(rows.start, rows.stop) if order is None else order[rows].tolist()
                batch = (self.collate or stack_items)([self.dataset[i] for i in indices])
            yield batch if self.device is None else moved(batch, self.device)


def moved(batch: Any, device: Device) -> Any:
    """A batch with its tensors (inside tuples, lists and dicts too) on a device."""
    if isinstance(batch, Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: moved(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        items = [moved(item, device) for item in batch]
        return type(batch)(*items) if hasattr(batch, "_fields") else type(batch)(items)
    return batch


def stack_items(items: Sequence[Any]) -> Any:
    """Items (numbers, arrays, Tensors, or tuples and dicts of them) to one such item with a new first axis."""
    head = items[0]
    if isinstance(head, dict):
        return {key: stack_items([item[key] for item in items]) for key in head}
    if isinstance(head, (tuple, list)):
        if any(len(item) != len(head) for item in items):
            raise ShapeError(f"DataLoader: items have different lengths: {sorted({len(item) for item in items})}")
        return tuple(stack_items(column) for column in zip(*items, strict=True))
    tensors = [to_tensor(item) for item in items]
    shapes, formats = {t.shape for t in tensors}, {t.dtype.name for t in tensors}
    if len(shapes) > 1 or len(formats) > 1:
        found = ", ".join(
            sorted(f"{t.dtype}{list(t.shape)}" for t in {(t.shape, t.dtype): t for t in tensors}.values())
        )
        raise ShapeError(f"DataLoader: items of a batch do not stack: {found}; give a collate function")
    return Tensor(np.stack([t.storage for t in tensors]), tensors[0].dtype)
