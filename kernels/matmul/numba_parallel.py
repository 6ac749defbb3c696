"""Eight rows of A share each load of four rows of B: 32 multiply-adds for twenty loads and stores instead of 48; and
threads share out the rows. Next limit: C goes through the L1 cache, since Numba cannot keep a tile in
registers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, as_format, float32, float64
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.matmul import layout, spec
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.registry import kernel

BLOCK_K = 256
BLOCK_N = 512
PAGE = 4096
ACTIVATIONS = (None, *spec.ACTIVATIONS)


# Blocks are given by their bounds: a slice of both axes would not be known as contiguous, and not vectorise.


@jit(fastmath={"contract"})
def eight_rows(a: Array, b: Array, c: Array, i: int, p0: int, p1: int, j0: int, j1: int) -> None:
    """c[i : i + 8, j0:j1] += a[i : i + 8, p0:p1] @ b[p0:p1, j0:j1]."""
    c0, c1, c2, c3 = c[i, j0:j1], c[i + 1, j0:j1], c[i + 2, j0:j1], c[i + 3, j0:j1]
    c4, c5, c6, c7 = c[i + 4, j0:j1], c[i + 5, j0:j1], c[i + 6, j0:j1], c[i + 7, j0:j1]
    whole = p0 + (p1 - p0) // 4 * 4
    for p in range(p0, whole, 4):
        b0, b1, b2, b3 = b[p, j0:j1], b[p + 1, j0:j1], b[p + 2, j0:j1], b[p + 3, j0:j1]
        a00, a01, a02, a03 = a[i + 0, p], a[i + 0, p + 1], a[i + 0, p + 2], a[i + 0, p + 3]
        a10, a11, a12, a13 = a[i + 1, p], a[i + 1, p + 1], a[i + 1, p + 2], a[i + 1, p + 3]
        a20, a21, a22, a23 = a[i + 2, p], a[i + 2, p + 1], a[i + 2, p + 2], a[i + 2, p + 3]
        a30, a31, a32, a33 = a[i + 3, p], a[i + 3, p + 1], a[i + 3, p + 2], a[i + 3, p + 3]
        a40, a41, a42, a43 = a[i + 4, p], a[i + 4, p + 1], a[i + 4, p + 2], a[i + 4, p + 3]
        a50, a51, a52, a53 = a[i + 5, p], a[i + 5, p + 1], a[i + 5, p + 2], a[i + 5, p + 3]
        a60, a61, a62, a63 = a[i + 6, p], a[i + 6, p + 1], a[i + 6, p + 2], a[i + 6, p + 3]
        a70, a71, a72, a73 = a[i + 7, p], a[i + 7, p + 1], a[i + 7, p + 2], a[i + 7, p + 3]
        for j in range(j1 - j0):
            v0, v1, v2, v3 = b0[j], b1[j], b2[j], b3[j]
            c0[j] = (((c0[j] + a00 * v0) + a01 * v1) + a02 * v2) + a03 * v3
            c1[j] = (((c1[j] + a10 * v0) + a11 * v1) + a12 * v2) + a13 * v3
            c2[j] = (((c2[j] + a20 * v0) + a21 * v1) + a22 * v2) + a23 * v3
            c3[j] = (((c3[j] + a30 * v0) + a31 * v1) + a32 * v2) + a33 * v3
            c4[j] = (((c4[j] + a40 * v0) + a41 * v1) + a42 * v2) + a43 * v3
            c5[j] = (((c5[j] + a50 * v0) + a51 * v1) + a52 * v2) + a53 * v3
            c6[j] = (((c6[j] + a60 * v0) + a61 * v1) + a62 * v2) + a63 * v3
            c7[j] = (((c7[j] + a70 * v0) + a71 * v1) + a72 * v2) + a73 * v3
    for row in range(i, i + 8):
        one_row(a, b, c, row, whole, p1, j0, j1)


@jit(fastmath={"contract"})
def four_rows(a: Array, b: Array, c: Array, i: int, p0: int, p1: int, j0: int, j1: int) -> None:
    """c[i : i + 4, j0:j1] += a[i : i + 4, p0:p1] @ b[p0:p1, j0:j1]."""
    c0, c1, c2, c3 = c[i, j0:j1], c[i + 1, j0:j1], c[i + 2, j0:j1], c[i + 3, j0:j1]
    whole = p0 + (p1 - p0) // 4 * 4
    for p in range(p0, whole, 4):
        b0, b1, b2, b3 = b[p, j0:j1], b[p + 1, j0:j1], b[p + 2, j0:j1], b[p + 3, j0:j1]
        a00, a01, a02, a03 = a[i, p], a[i, p + 1], a[i, p + 2], a[i, p + 3]
        a10, a11, a12, a13 = a[i + 1, p], a[i + 1, p + 1], a[i + 1, p + 2], a[i + 1, p + 3]
        a20, a21, a22, a23 = a[i + 2, p], a[i + 2, p + 1], a[i + 2, p + 2], a[i + 2, p + 3]
        a30, a31, a32, a33 = a[i + 3, p], a[i + 3, p + 1], a[i + 3, p + 2], a[i + 3, p + 3]
        for j in range(j1 - j0):
            v0, v1, v2, v3 = b0[j], b1[j], b2[j], b3[j]
            c0[j] = (((c0[j] + a00 * v0) + a01 * v1) + a02 * v2) + a03 * v3
            c1[j] = (((c1[j] + a10 * v0) + a11 * v1) + a12 * v2) + a13 * v3
            c2[j] = (((c2[j] + a20 * v0) + a21 * v1) + a22 * v2) + a23 * v3
            c3[j] = (((c3[j] + a30 * v0) + a31 * v1) + a32 * v2) + a33 * v3
    for row in range(i, i + 4):
        one_row(a, b, c, row, whole, p1, j0, j1)


@jit(fastmath={"contract"})
def one_row(a: Array, b: Array, c: Array, i: int, p0: int, p1: int, j0: int, j1: int) -> None:
    """c[i, j0:j1] += a[i, p0:p1] @ b[p0:p1, j0:j1]."""
    row = c[i, j0:j1]
    for p in range(p0, p1):
        scale, line = a[i, p], b[p, j0:j1]
        for j in range(len(row)):
            row[j] += scale * line[j]


@jit()
def add_product(a: Array, b: Array, c: Array, p0: int, p1: int, j0: int, j1: int) -> None:
    """c[: len(a), j0:j1] += a[:, p0:p1] @ b[p0:p1, j0:j1], for other families' kernels."""
    rows = len(a)
    for i in range(0, rows // 8 * 8, 8):
        eight_rows(a, b, c, i, p0, p1, j0, j1)
    for i in range(rows // 8 * 8, rows // 4 * 4, 4):
        four_rows(a, b, c, i, p0, p1, j0, j1)
    for i in range(rows // 4 * 4, rows):
        one_row(a, b, c, i, p0, p1, j0, j1)


@jit(parallel=True, fastmath={"contract"})
def multiply(a: Array, b: Array, c: Array, height: int) -> None:
    """c += a b; a task is `height` rows of one matrix."""
    stack, m, n = c.shape
    k = a.shape[2]
    tasks = (m + height - 1) // height
    for task in prange(stack * tasks):
        s, first = task // tasks, task % tasks * height
        left, right, out = a[min(s, len(a) - 1)], b[min(s, len(b) - 1)], c[s]
        last = min(m, first + height)
        eights = first + (last - first) // 8 * 8
        fours = first + (last - first) // 4 * 4
        for p0 in range(0, k, BLOCK_K):
            p1 = min(k, p0 + BLOCK_K)
            for j0 in range(0, n, BLOCK_N):
                j1 = min(n, j0 + BLOCK_N)
                for i in range(first, eights, 8):
                    eight_rows(left, right, out, i, p0, p1, j0, j1)
                for i in range(eights, fours, 4):
                    four_rows(left, right, out, i, p0, p1, j0, j1)
                for i in range(fours, last):
                    one_row(left, right, out, i, p0, p1, j0, j1)


@jit(parallel=True)
def finish(c: Array, scale: Array, bias: Array, activation: int, residual: Array) -> None:
    """c = activation(c * scale + bias) + residual, row by row; a residual without rows is none."""
    one, half, root = c.dtype.type(1), c.dtype.type(0.5), c.dtype.type(math.sqrt(0.5))
    for i in prange(len(c)):
        row = c[i]
        for j in range(len(row)):
            x = row[j] * scale[j] + bias[j]
            if activation == 1:
                x = x if not x < 0 else x - x
            elif activation == 2:
                x = half * x * math.erfc(-x * root)
            elif activation == 3:
                x = x / (one + math.exp(-x))
            elif activation == 4:
                x = math.tanh(x)
            elif activation == 5:
                x = one / (one + math.exp(-x))
            row[j] = x
        if len(residual):
            for j in range(len(row)):
                row[j] += residual[i, j]


def task_height(m: int) -> int:
    """Rows per task: up to 64, and fewer where that leaves less than eight tasks."""
    return max(8, min(64, m // 64 * 8))


def padded(columns: int, itemsize: int) -> int:
    """Columns of B and C while they are worked on: rows nearly a page apart would share one set of the L1 cache."""
    beyond = columns * itemsize % PAGE
    return (columns + 63) // 32 * 32 if columns * itemsize > PAGE // 2 and not 256 <= beyond <= PAGE - 256 else columns


@kernel(spec.matmul, "cpu/numba-parallel", rank=40, formats=[float32, float64], contiguous=True)
def matmul(a: Array, b: Array) -> Array:
    a, b, shape = layout.stacks(a, b)
    n = b.shape[2]
    more = padded(n, b.itemsize) - n
    b = np.pad(b, ((0, 0), (0, 0), (0, more))) if more else b
    c = layout.product(a, b, shape)
    multiply(a, b, c, task_height(a.shape[1]))
    return np.ascontiguousarray(c[:, :, :n]).reshape(*shape, a.shape[1], n)


@kernel(
    spec.linear,
    "cpu/numba-parallel",
    rank=40,
    formats=[float32, float64],
    contiguous=True,
    idea="matmul's rung of this name on the transposed weight, then one sweep for all that follows.",
)
def linear(
    x: Array, weight: Array, bias: Array | None, scale: Array | None = None, residual: Array | None = None, *,
    activation: str | None = None, factor: float = 1.0, dtype: Format | None = None, packed: Any = None,
) -> Array:  # fmt: skip
    out = matmul(layout.rows(x), np.ascontiguousarray(weight.T))
    if factor != 1.0 or any(given is not None for given in (bias, scale, residual, activation)):
        by = np.full(len(weight), factor, x.dtype) if scale is None else (scale * factor).astype(x.dtype)
        added = np.zeros(len(weight), x.dtype) if bias is None else bias
        rest = np.empty((0, len(weight)), x.dtype) if residual is None else layout.rows(residual)
        finish(out, by, added, ACTIVATIONS.index(activation), rest)
    out = out.reshape(*x.shape[:-1], len(weight))
    return out if dtype is None else convert(out, as_format(x.dtype), dtype)
