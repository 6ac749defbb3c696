"""Copies of large arrays in C++, with threads and tiles; of small ones in NumPy, which starts faster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import memory, native

LARGE = 1 << 16  # bytes, about 10 us


def copy_into(out: Array, x: Array) -> None:
    """Write x to `out`, as `out[...] = x` does."""
    if (
        out.nbytes < LARGE
        or out.shape != x.shape
        or out.dtype != x.dtype
        or not (out.flags.aligned and x.flags.aligned)
        or native.missing()
        or np.may_share_memory(out, x)
    ):
        out[...] = x
    else:
        native.module().copy_into(out, x)


def copied(x: Array) -> Array:
    """A C-contiguous copy."""
    if x.nbytes < LARGE:
        return x.copy()
    out = memory.empty(x.shape, x.dtype)
    copy_into(out, x)
    return out


def joined(parts: Sequence[Array], axis: int) -> Array:
    """Arrays of one type joined along an axis; their other sizes are equal."""
    if sum(p.nbytes for p in parts) < LARGE * len(parts):
        return np.concatenate(parts, axis=axis)
    before, behind = parts[0].shape[:axis], parts[0].shape[axis + 1 :]
    out = memory.empty((*before, sum(p.shape[axis] for p in parts), *behind), parts[0].dtype)
    start = 0
    for part in parts:
        end = start + part.shape[axis]
        copy_into(out[(slice(None),) * axis + (slice(start, end),)], part)
        start = end
    return out


def _turns(size: int, shift: int) -> Iterator[tuple[slice, slice]]:
    """(from, to) of the two pieces of an axis that is rolled."""
    shift %= max(size, 1)
    yield slice(0, size - shift), slice(shift, size)
    if shift:
        yield slice(size - shift, size), slice(0, shift)


def rolled(x: Array, shift: int | tuple[int, ...], axis: tuple[int, ...] | None) -> Array:
    """`np.roll`; the result is C-contiguous where x is large."""
    if x.nbytes < LARGE:
        return np.roll(x, shift, axis)
    if axis is None:
        flat = (x if x.flags.c_contiguous else copied(x)).reshape(-1)
        return rolled(flat, int(np.sum(shift)), (0,)).reshape(x.shape)
    shifts = [0] * x.ndim
    for s, a in np.broadcast(shift, axis):
        shifts[a] += int(s)
    out = memory.empty(x.shape, x.dtype)
    for pieces in product(*map(_turns, x.shape, shifts)):
        copy_into(out[tuple(to for _, to in pieces)], x[tuple(start for start, _ in pieces)])
    return out


def tiled(x: Array, counts: tuple[int, ...]) -> Array:
    """x, of as many axes as `counts`, repeated whole along each."""
    if 2 * x.ndim > 32:  # more axes than every NumPy takes
        return np.tile(x, counts)
    sizes = list(zip(counts, x.shape, strict=True))
    out = memory.empty(tuple(v for pair in sizes for v in pair), x.dtype)
    copy_into(out, np.broadcast_to(x.reshape([v for s in x.shape for v in (1, s)]), out.shape))
    return out.reshape([c * s for c, s in sizes])
