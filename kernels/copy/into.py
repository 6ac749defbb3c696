"""Copies of large arrays in C++, with threads and tiles; of small ones in NumPy, which starts faster."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import gpu, memory, native

LARGE = 1 << 16  # bytes, about 10 us


def copy_into(out: Array, x: Array) -> None:
    """Write x to `out`, as `out[...] = x` does."""
    if (
        out.nbytes < LARGE
        or not isinstance(out, np.ndarray)
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
    """A C-contiguous copy, on the same device."""
    if x.__class__ is not np.ndarray:
        return gpu.copied(x)
    if x.nbytes < LARGE:
        return x.copy()
    out = memory.empty(x.shape, x.dtype)
    copy_into(out, x)
    return out


def joining(parts: Sequence[Array], axis: int) -> Callable[..., Array]:
    """A function that joins arrays like these along an axis: of one type, their other sizes equal."""
    if not isinstance(parts[0], np.ndarray):
        return lambda *given: gpu.xp().concatenate(given, axis)
    if sum(p.nbytes for p in parts) < LARGE * len(parts):
        return lambda *given: np.concatenate(given, axis)
    return lambda *given: _joined(given, axis)


def stacking(parts: Sequence[Array], axis: int) -> Callable[..., Array]:
    """A function that joins arrays like these, of one type and shape, along a new axis."""
    shape = parts[0].shape
    if axis == 0 and shape:
        join, whole = joining(parts, 0), (len(parts), *shape)
        return lambda *given: join(*given).reshape(whole)
    layer = (slice(None),) * axis + (None,)
    join = joining([p[layer] for p in parts], axis)
    return lambda *given: join(*[p[layer] for p in given])


def _joined(parts: Sequence[Array], axis: int) -> Array:
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


def rolling(shape: tuple[int, ...], shift: int | tuple[int, ...], axis: tuple[int, ...] | None) -> Callable[..., Array]:
    """A function that rolls arrays of a shape as `np.roll` does; what it gives is C-contiguous."""
    if axis is None:
        flat = rolling((math.prod(shape),), int(np.sum(shift)), (0,))
        return lambda x: flat(x.reshape(-1) if x.flags.c_contiguous else copied(x).reshape(-1)).reshape(shape)
    shifts = [0] * len(shape)
    for s, a in np.broadcast(shift, axis):
        shifts[a] += int(s)
    pieces = list(product(*map(_turns, shape, shifts)))
    moves = [(tuple(given for given, _ in piece), tuple(to for _, to in piece)) for piece in pieces]

    def rolled(x: Array) -> Array:
        out = memory.empty_beside(x, x.shape)
        for given, to in moves:
            copy_into(out[to], x[given])
        return out

    return rolled


def tiled(x: Array, counts: tuple[int, ...]) -> Array:
    """x, of as many axes as `counts`, repeated whole along each."""
    if 2 * x.ndim > 32:  # more axes than every NumPy takes
        return np.tile(x, counts)
    sizes = list(zip(counts, x.shape, strict=True))
    out = memory.empty_beside(x, tuple(v for pair in sizes for v in pair))
    copy_into(out, np.broadcast_to(x.reshape([v for s in x.shape for v in (1, s)]), out.shape))
    return out.reshape([c * s for c, s in sizes])
