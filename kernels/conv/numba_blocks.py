"""A few rows of pixels at a time: their patches stay in the second cache, and are multiplied where they lie, one image per
thread.

Forward and input gradient are matmul's loops with pixels in lanes. The weight gradient is made of dots along the pixels,
sixteen at a time: four rows of each operand meet in registers, and nothing is stored before the block ends. Next limit: what
is loaded and stored beside each multiply-add, and the patches themselves, which C++ does without.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.activated import activated, largest
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.kernels.conv.numba_direct import inside
from ulpgrad.kernels.matmul.numba_parallel import add_product
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import ZERO
from ulpgrad.kernels.numba_rows import SUM, dot
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float32, float64)
PIXELS = 256  # of a block: with 144 values to a patch it takes 144 KiB
PARTS = 32  # that images are shared out to for the weight gradient, each with a sum of its own


@jit()
def _unfold(x, columns, row, rows, per_row, size, stride, padding, dilation):  # type: ignore[no-untyped-def]
    """Patches of one image [c, h, w] for `rows` rows of results from `row` on: columns[c kh kw, rows per_row]."""
    at, (channels, height, width) = 0, x.shape
    for c in range(channels):
        for i in range(size[0]):
            for j in range(size[1]):
                left = j * dilation[1] - padding[1]
                first, end = inside(left, stride[1], per_row, width)
                for r in range(rows):
                    h = (row + r) * stride[0] + i * dilation[0] - padding[0]
                    line = columns[at, r * per_row : (r + 1) * per_row]
                    if h < 0 or h >= height or first >= end:
                        line[:] = ZERO
                        continue
                    line[:first], line[end:] = ZERO, ZERO
                    source = x[c, h]
                    if stride[1] == 1:
                        line[first:end] = source[left + first : left + end]
                    else:
                        for q in range(first, end):
                            line[q] = source[left + q * stride[1]]
                at += 1


@jit()
def _fold(columns, x, row, rows, per_row, size, stride, padding, dilation):  # type: ignore[no-untyped-def]
    """The same way back: values of patches are added to the pixels that they came from."""
    at, (channels, height, width) = 0, x.shape
    for c in range(channels):
        for i in range(size[0]):
            for j in range(size[1]):
                left = j * dilation[1] - padding[1]
                first, end = inside(left, stride[1], per_row, width)
                for r in range(rows):
                    h = (row + r) * stride[0] + i * dilation[0] - padding[0]
                    if h < 0 or h >= height:
                        continue
                    line, target = columns[at, r * per_row : (r + 1) * per_row], x[c, h]
                    if stride[1] == 1 and first < end:
                        reached = target[left + first : left + end]
                        for q in range(end - first):
                            reached[q] += line[first + q]
                    else:
                        for q in range(first, end):
                            target[left + q * stride[1]] += line[q]
                at += 1


@jit(fastmath=SUM)
def _sixteen_dots(a, b, c, i, j):  # type: ignore[no-untyped-def]
    """c[i : i + 4, j : j + 4] += a[i : i + 4] @ b[j : j + 4].T"""
    a0, a1, a2, a3, b0, b1, b2, b3 = a[i], a[i + 1], a[i + 2], a[i + 3], b[j], b[j + 1], b[j + 2], b[j + 3]
    s00, s01, s02, s03, s10, s11, s12, s13 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    s20, s21, s22, s23, s30, s31, s32, s33 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    for p in range(len(a0)):
        u, v, w, x = b0[p], b1[p], b2[p], b3[p]
        s00, s01, s02, s03 = s00 + a0[p] * u, s01 + a0[p] * v, s02 + a0[p] * w, s03 + a0[p] * x
        s10, s11, s12, s13 = s10 + a1[p] * u, s11 + a1[p] * v, s12 + a1[p] * w, s13 + a1[p] * x
        s20, s21, s22, s23 = s20 + a2[p] * u, s21 + a2[p] * v, s22 + a2[p] * w, s23 + a2[p] * x
        s30, s31, s32, s33 = s30 + a3[p] * u, s31 + a3[p] * v, s32 + a3[p] * w, s33 + a3[p] * x
    c0, c1, c2, c3 = c[i, j : j + 4], c[i + 1, j : j + 4], c[i + 2, j : j + 4], c[i + 3, j : j + 4]
    c0[0], c0[1], c0[2], c0[3] = c0[0] + s00, c0[1] + s01, c0[2] + s02, c0[3] + s03
    c1[0], c1[1], c1[2], c1[3] = c1[0] + s10, c1[1] + s11, c1[2] + s12, c1[3] + s13
    c2[0], c2[1], c2[2], c2[3] = c2[0] + s20, c2[1] + s21, c2[2] + s22, c2[3] + s23
    c3[0], c3[1], c3[2], c3[3] = c3[0] + s30, c3[1] + s31, c3[2] + s32, c3[3] + s33


@jit()
def _add_dots(a, b, c):  # type: ignore[no-untyped-def]
    """c += a @ b.T"""
    whole_i, whole_j = len(a) // 4 * 4, len(b) // 4 * 4
    for j in range(0, whole_j, 4):
        for i in range(0, whole_i, 4):
            _sixteen_dots(a, b, c, i, j)
    for i in range(len(a)):
        for j in range(whole_j if i < whole_i else 0, len(b)):
            c[i, j] += dot(a[i], b[j])


@jit()
def _block(g, row, rows, per_row):  # type: ignore[no-untyped-def]
    """Rows of pixels of [channels, pixels], in memory of their own."""
    return g[:, row * per_row : (row + rows) * per_row].copy()


@jit(parallel=True)
def _forward(x, filters, bias, y, rows, per_row, size, stride, padding, dilation):  # type: ignore[no-untyped-def]
    """x: [n, groups, c, h, w], filters: [groups, o, c kh kw], bias: [groups, o], y: [n, groups, o, oh ow]"""
    groups, outputs, taps = filters.shape
    height = y.shape[3] // per_row
    blocks = (height + rows - 1) // rows
    for task in prange(len(x) * groups * blocks):
        n, group, row = task // blocks // groups, task // blocks % groups, task % blocks * rows
        count = min(rows, height - row)
        columns = np.empty((taps, count * per_row), x.dtype)
        out = np.empty((outputs, count * per_row), x.dtype)
        for o in range(outputs):
            out[o] = bias[group, o]
        _unfold(x[n, group], columns, row, count, per_row, size, stride, padding, dilation)
        add_product(filters[group], columns, out, 0, taps, 0, count * per_row)
        y[n, group, :, row * per_row : (row + count) * per_row] = out


@jit(parallel=True)
def _input_gradient(g, filters, dx, rows, per_row, size, stride, padding, dilation):  # type: ignore[no-untyped-def]
    """g as y above, dx as x."""
    groups, outputs, taps = filters.shape
    height = g.shape[3] // per_row
    for task in prange(len(g) * groups):
        n, group = task // groups, task % groups
        for row in range(0, height, rows):
            count = min(rows, height - row)
            columns = np.zeros((taps, count * per_row), g.dtype)
            slopes = _block(g[n, group], row, count, per_row)
            add_product(filters[group].T, slopes, columns, 0, outputs, 0, count * per_row)
            _fold(columns, dx[n, group], row, count, per_row, size, stride, padding, dilation)


@jit(parallel=True)
def _weight_gradient(g, x, dw, rows, per_row, size, stride, padding, dilation):  # type: ignore[no-untyped-def]
    """dw: [parts, groups, o, c kh kw]; a part takes images in turn with the others."""
    parts, groups, _, taps = dw.shape
    height = g.shape[3] // per_row
    for task in prange(parts * groups):
        part, group = task // groups, task % groups
        for n in range(part, len(g), parts):
            for row in range(0, height, rows):
                count = min(rows, height - row)
                columns = np.empty((taps, count * per_row), g.dtype)
                _unfold(x[n, group], columns, row, count, per_row, size, stride, padding, dilation)
                _add_dots(_block(g[n, group], row, count, per_row), columns, dw[part, group])


def _grouped(a: Array, groups: int) -> Array:
    """[n, channels, h, w] -> [n, groups, channels / groups, h, w]"""
    return a.reshape(len(a), groups, a.shape[1] // groups, *a.shape[2:])


def _flat(a: Array, groups: int) -> Array:
    """The same with h w for the last two axes."""
    return a.reshape(len(a), groups, a.shape[1] // groups, prod(a.shape[2:]))


def _filters(weight: Array, groups: int) -> Array:
    """[o, c, kh, kw] -> [groups, o / groups, c kh kw]"""
    return weight.reshape(groups, weight.shape[0] // groups, prod(weight.shape[1:]))


def _rows(per_row: int) -> int:
    """Rows of results to a block."""
    return max(1, PIXELS // per_row)


def _few(request: Request) -> str | None:
    images, groups = len(request.arrays[0]), request.params.get("groups", 1)
    return None if images * groups > 1 else "shares out images: there are fewer than two"


@kernel(spec.conv2d, "cpu/numba-blocks", rank=40, formats=FORMATS, contiguous=True)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: str | None = None,
) -> Array:
    positions = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    y = np.empty((len(x), weight.shape[0], *positions), x.dtype)
    added = (np.zeros(len(weight), x.dtype) if bias is None else bias).reshape(groups, len(weight) // groups)
    _forward(_grouped(x, groups), _filters(weight, groups), added, _flat(y, groups), _rows(positions[1]), positions[1],
             weight.shape[2:], stride, padding, dilation)  # fmt: skip
    return activated(y, activation)


@kernel(
    spec.conv2d_max_pool,
    "cpu/numba-blocks",
    rank=40,
    formats=FORMATS,
    contiguous=True,
    idea="conv2d's rung of this name, then the largest value of each window, then the activation of these alone.",
)
def conv2d_max_pool(
    x: Array, weight: Array, bias: Array | None, *, window: Pair, activation: str | None = None, **geometry: Any
) -> tuple[Array, Array]:
    return largest(conv2d(x, weight, bias, groups=1, **geometry), window, activation)


@kernel(spec.conv2d_input_gradient, "cpu/numba-blocks", rank=40, formats=FORMATS, contiguous=True, where=_few)
def input_gradient(
    g: Array, weight: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    dx = np.zeros((len(g), weight.shape[1] * groups, *size), g.dtype)
    _input_gradient(_flat(g, groups), _filters(weight, groups), _grouped(dx, groups), _rows(g.shape[3]), g.shape[3],
                    weight.shape[2:], stride, padding, dilation)  # fmt: skip
    return dx


@kernel(spec.conv2d_weight_gradient, "cpu/numba-blocks", rank=40, formats=FORMATS, contiguous=True, where=_few)
def weight_gradient(
    g: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Array:
    channels = x.shape[1] // groups
    dw = np.zeros((min(PARTS, len(x)), groups, g.shape[1] // groups, channels * prod(size)), g.dtype)
    _weight_gradient(_flat(g, groups), _grouped(x, groups), dw, _rows(g.shape[3]), g.shape[3], size, stride, padding,
                     dilation)  # fmt: skip
    return dw.sum(axis=0).reshape(g.shape[1], channels, *size)
