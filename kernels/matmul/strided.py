"""How matrices lie in a GPU's memory: what decides which kernels take them, without looking at values."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.kernels import gpu

Axes = list[tuple[int, tuple[int, ...]]]


def strides(x: Any) -> tuple[int, ...]:
    """Strides in elements; 0 along axes of one element, which nobody steps along."""
    return tuple(0 if n == 1 else s // x.itemsize for n, s in zip(x.shape, x.strides, strict=True))


def merged(sizes: tuple[int, ...], steps: list[tuple[int, ...]]) -> Axes:
    """Axes, each with the step of every operand; neighbours that all operands step through evenly are one. None of size 1."""
    axes: Axes = []
    for size, *given in zip(sizes, *steps, strict=True):
        if size == 1:
            continue
        if axes and all(before == size * step for before, step in zip(axes[-1][1], given, strict=True)):
            axes[-1] = (axes[-1][0] * size, tuple(given))
        else:
            axes.append((size, tuple(given)))
    return axes


def stack(a: Any, b: Any) -> Axes:
    """The leading axes of a @ b, with the steps of a and b (0 where one is repeated)."""
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return merged(lead, [(0,) * (len(lead) - x.ndim + 2) + strides(x)[:-2] for x in (a, b)])


def is_more_rows(a: Any, b: Any) -> bool:
    """Whether the stack a @ b is one product, since b is one matrix and the rows of a follow each other evenly."""
    one = math.prod(b.shape[:-2]) == 1 and a.ndim > 2 and 0 not in a.shape
    return one and len(merged(a.shape[:-1], [strides(a)[:-1]])) == 1


def lies(x: Any) -> str | None:
    """Which of "rows" and "columns" are contiguous in matrices that the tensor memory accelerator moves: the address and all
    other strides are multiples of 16 bytes, and nothing is repeated. None for others, and empty ones."""
    if 0 in x.shape or x.data.ptr % 16:
        return None
    steps = [(s, n) for s, n in zip(x.strides, x.shape, strict=True)]
    (down, _), (along, _) = steps[-2:]
    name = "rows" if along == x.itemsize else "columns" if down == x.itemsize else None
    others = [*steps[:-2], steps[-2] if name == "rows" else steps[-1]]
    return name if all(n == 1 or (s > 0 and s % 16 == 0) for s, n in others) and _pitched(x, name) else None


def _pitched(x: Any, name: str | None) -> bool:
    """Whether a descriptor can say the stride between rows even where there is but one."""
    return (x.strides[-2] if name == "rows" else x.strides[-1]) % 16 == 0


def alignment(n: int) -> int:
    """The largest power of two up to 16 that divides n."""
    return min(n & -n, 16) if n else 16


TILE = 64  # rows and columns of results: what few multiprocessors share is counted in such
LEAST_PART = 512  # of k: shorter sums are over before they are worth a second kernel
MOST_PARTS = 32


def parts_of(m: int, n: int, k: int) -> int:
    """Into how many equal parts of whole blocks k is split, so that a small result keeps the current device busy; 1 for none."""
    tiles, parts = -(-m // TILE) * -(-n // TILE), 1
    while (
        0 < 2 * parts * tiles <= gpu.processors()
        and parts < MOST_PARTS
        and k % (2 * parts * TILE) == 0
        and k // (2 * parts) >= LEAST_PART
    ):
        parts *= 2
    return parts


class Facts(NamedTuple):
    """What the choice of a kernel for a product depends on: how its operands lie, the leading axes that are left, whether
    there is one row or one column, how the lengths of the result's rows and of k are aligned, and how often k is split."""

    a: str | None
    b: str | None
    axes: int
    one_row: bool
    one_column: bool
    aligned: int
    deep: int
    parts: int

    @property
    def vector(self) -> bool:
        return self.one_row or self.one_column


def of_product(a: Any, b: Any) -> Facts | None:
    """Facts about a @ b on a GPU; None for the CPU's arrays, whose kernels take any."""
    if a.__class__ is np.ndarray:
        return None
    flat = a.ndim == b.ndim == 2 or is_more_rows(a, b)
    rows = math.prod(a.shape[:-1]) if flat else a.shape[-2]
    return Facts(lies(a), lies(b), 0 if flat else len(stack(a, b)), rows == 1, b.shape[-1] == 1, alignment(b.shape[-1]),
                 alignment(a.shape[-1]), parts_of(rows, b.shape[-1], a.shape[-1]) if flat else 1)  # fmt: skip


def of_layer(x: Any, weight: Any, *_: Any) -> Facts | None:
    """Facts about x @ weight.T, with the leading axes of x as rows."""
    if x.__class__ is np.ndarray:
        return None
    contiguous = x.ndim == 2 or x.flags.c_contiguous
    a = lies(x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])) if contiguous else None
    outputs, rows = weight.shape[0], math.prod(x.shape[:-1])
    return Facts(a, lies(weight.T), 0, rows == 1, outputs == 1, alignment(outputs), alignment(x.shape[-1]),
                 parts_of(rows, *weight.shape))  # fmt: skip
