"""An axis anywhere in a C-contiguous array, as Triton kernels see it: [outer, n, inner] becomes lines of n values.

Along the last axis a line is a row, and its values lie side by side; along another, neighbouring lines do. Either way a program
takes a tile of lines x values whose long side lies side by side in memory, so nothing is transposed or copied. Tiles hang on the
shape alone, never on the machine or the grid: what is summed tile by tile has the same bits on every run.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: RET505 (of two branches on a constant, Triton compiles one: what follows an `if` it would compile for both)

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from ulpgrad.kernels.triton_launch import cdiv, tl, triton

ACROSS = 64  # bytes of neighbouring lines that a tile takes where values of a line lie apart: two sectors of memory


class Lines(NamedTuple):
    """`groups` of `lines` lines of `n` values; strides in values."""

    groups: int
    lines: int
    n: int
    group_stride: int
    line_stride: int
    step: int

    @property
    def strides(self) -> tuple[int, int, int]:
        return self.group_stride, self.line_stride, self.step


class Tile(NamedTuple):
    """How lines are cut: `lines` x `values` to a program, both powers of two."""

    lines: int
    values: int
    blocks: int  # of lines, in a group
    pieces: int  # of a line
    programs: int

    @property
    def constants(self) -> dict[str, int]:
        """What a kernel is compiled for: 16 to 32 values to a thread, where there are so many."""
        return {"LINES": self.lines, "VALUES": self.values, "num_warps": warps(self.lines * self.values)}


def warps(values: int) -> int:
    """Warps for a tile of so many values."""
    return min(max(power(values) // 512, 1), 16 if values <= 16384 else 32)


def power(n: int) -> int:
    """The power of two from n up."""
    return 1 << max(n - 1, 0).bit_length()


def around(shape: Sequence[int], axis: int) -> Lines:
    """The lines along an axis."""
    return lines_of(math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :]))


def lines_of(outer: int, n: int, inner: int) -> Lines:
    """The lines along the middle one of three axes."""
    return Lines(1, outer, n, 0, n, 1) if inner == 1 else Lines(outer, inner, n, n * inner, 1, inner)


@lru_cache(4096)
def cut(lines: Lines, itemsize: int, most: int, budget: int = 4096) -> Tile:
    """Tiles of about `budget` values, of at most `most` of a line."""
    if lines.step == 1:
        values = power(min(lines.n, most))
        across = min(max(budget // values, 1), power(lines.lines))
    else:
        across = min(power(lines.lines), ACROSS // itemsize if lines.n > 64 else budget // power(lines.n))
        values = power(min(lines.n, most, max(budget // across, 1)))
    blocks, pieces = cdiv(lines.lines, across), cdiv(lines.n, values)
    return Tile(across, values, blocks, pieces, lines.groups * blocks * pieces)


@triton.jit
def place(blocks, pieces):
    """(group, block, piece) of this program; the pieces of a line are neighbours."""
    program = tl.program_id(0)
    rest = program // pieces
    return (rest // blocks).to(tl.int64), rest % blocks, (program % pieces).to(tl.int64)


@triton.jit
def offsets(
    group, block, start, lines, n, group_stride, line_stride, step,
    LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """Where the tile that begins at value `start` of its lines lies, and which of it there is."""
    line, value = block * LINES + tl.arange(0, LINES), tl.arange(0, VALUES)
    first = group * group_stride + start * step
    at = first + (line.to(tl.int64) * line_stride)[:, None] + (value.to(tl.int64) * step)[None, :]
    left = tl.minimum(n - start, VALUES).to(tl.int32)
    return at, (line < lines)[:, None] & (value < left)[None, :]


@triton.jit
def of_lines(group, block, piece, pieces, lines, LINES: tl.constexpr):
    """Where a program's lines have their places in [groups, pieces, lines], and which of them there are."""
    line = block * LINES + tl.arange(0, LINES)
    return (group * pieces + piece) * lines + line, line < lines


@triton.jit
def wide(x):
    """Values as kernels compute with them: float32, or float64 as it is."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


__all__ = [
    "Lines",
    "Tile",
    "around",
    "cdiv",
    "cut",
    "lines_of",
    "of_lines",
    "offsets",
    "place",
    "power",
    "warps",
    "wide",
]
