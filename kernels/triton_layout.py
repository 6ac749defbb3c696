"""How a Triton kernel walks elementwise over arrays of some shapes and strides: found once, remembered by them.

Axes are ordered as they lie in memory and joined where no operand notices. What is left is one run of values, or tiles of rows
and columns: the innermost axis, and all others counted in one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.kernels import gpu

WARPS = 8
BYTES = 16  # that a thread loads at once
TURNED = 32  # rows and columns of a tile where neighbours of some operand do not lie side by side
INT32 = 2**31
MOST = 4096  # walks that an op remembers in a format

Places = tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]  # shape and strides of each operand


class Walk(NamedTuple):
    """`rank`: axes that rows stand for; 0: one run of values. `access`: how each operand varies: "full" or "one" along a run,
    "both", "row", "column" or "one" over tiles. `numbers`: what a kernel is told of sizes and strides. `order`: of the results'
    axes in memory, None for C's."""

    shape: tuple[int, ...]
    order: tuple[int, ...] | None
    rank: int
    access: tuple[str, ...]
    numbers: tuple[int, ...]
    grid: tuple[int]
    constants: dict[str, Any]

    def empty(self, dtype: Any) -> Any:
        """New memory for a result."""
        if self.order is None:
            return gpu.empty(self.shape, dtype)
        made = gpu.empty(tuple(self.shape[axis] for axis in self.order), dtype)
        return made.transpose(tuple(np.argsort(self.order).tolist()))


def _order(shape: tuple[int, ...], places: Places) -> tuple[int, ...] | None:
    """The order of axes of the first operand that has all of them; C's where one has that."""
    whole = [strides for given, strides in places if given == shape and 0 not in strides]
    found = [tuple(sorted(range(len(shape)), key=lambda axis: -abs(strides[axis]))) for strides in whole]
    plain = tuple(range(len(shape)))
    return None if not found or plain in found else found[0]


def _joined(sizes: list[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """Axes without those of one element, neighbours joined where every operand goes on from the one to the other."""
    kept = [axis for axis, size in enumerate(sizes) if size != 1]
    groups: list[list[int]] = []
    for axis in kept:
        if groups and all(s[groups[-1][-1]] == s[axis] * sizes[axis] for s in strides):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    return [math.prod(sizes[a] for a in group) for group in groups], [
        [s[group[-1]] for group in groups] for s in strides
    ]


def _power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def walk(places: Places, itemsize: int) -> Walk:
    """The walk over operands of these shapes, and strides in elements; `itemsize` is that of the results."""
    shape = np.broadcast_shapes(*(given for given, _ in places))
    order = _order(shape, places)
    axes = order or tuple(range(len(shape)))
    strides = []
    for given, steps in places:
        wide = (*(0,) * (len(shape) - len(given)), *(0 if n == 1 else s for n, s in zip(given, steps, strict=True)))
        strides.append([wide[axis] for axis in axes])
    sizes, strides = _joined([shape[axis] for axis in axes], strides)
    count = math.prod(shape)
    block = min(WARPS * 32 * BYTES // itemsize, 2048)
    reach = max([count, *(sum(abs(s) * (n - 1) for s, n in zip(steps, sizes, strict=True)) for steps in strides)])
    is_wide = reach >= INT32 - 2 * block
    if count == 0 or (len(sizes) < 2 and all(s in ([], [0], [1]) for s in strides)):
        access = tuple("one" if s == [0] else "full" for s in strides)
        return Walk(shape, order, 0, access, (count,), (-(-count // block),),
                    {"WIDE": is_wide, "BLOCK": block, "num_warps": WARPS})  # fmt: skip
    if len(sizes) == 1:
        sizes, strides = [1, *sizes], [[0, *s] for s in strides]
    *outer, columns = sizes
    rows = math.prod(outer)
    is_turned = rows > 1 and any(abs(s[-1]) > 1 for s in strides)
    width = min(_power_of_two(columns), TURNED if is_turned else block)
    height = min(_power_of_two(rows), TURNED if is_turned and columns >= TURNED else block // width)
    ways: list[str] = []
    numbers = [rows, columns, *outer[1:]]
    for s in strides:
        in_row, in_column = any(s[:-1]), s[-1] != 0
        ways.append(("both" if in_column else "row") if in_row else "column" if in_column else "one")
        numbers += [*s[:-1]] * in_row + [s[-1]] * in_column
    tiles = -(-rows // height) * -(-columns // width)
    return Walk(shape, order, len(outer), tuple(ways), tuple(numbers), (tiles,),
                {"WIDE": is_wide, "ROWS": height, "COLUMNS": width, "num_warps": WARPS})  # fmt: skip


class Walks(dict[Places, Walk]):
    """The walks over operands of these item sizes, by the shapes and strides that arrays tell; made when first asked for."""

    def __init__(self, itemsizes: Sequence[int], result: int) -> None:
        self.itemsizes, self.result = itemsizes, result

    def __missing__(self, key: Places) -> Walk:
        if len(self) >= MOST:
            self.clear()
        places = tuple(
            (shape, tuple(step // size for step in strides))
            for (shape, strides), size in zip(key, self.itemsizes, strict=True)
        )
        found = self[key] = walk(places, self.result)
        return found
