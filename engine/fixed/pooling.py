"""Pooling of images: taps of the windows are added, or compared, as whole planes."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ulpgrad.device import module_of
from ulpgrad.fixed.elementwise import chosen
from ulpgrad.fixed.reduction import shared, sum_bounds
from ulpgrad.fixed.routing import implements, operands
from ulpgrad.fixed.rules import Rule, added_bits
from ulpgrad.fixed.run import Outcome, on_host
from ulpgrad.formats import Array, Fixed
from ulpgrad.kernels.adaptive_pool.spec import spans
from ulpgrad.kernels.conv.geometry import Pair, output_size
from ulpgrad.ops.quantize import beside_codes
from ulpgrad.tensor import Tensor

ONE = (1, 1)


def taps(x: Array, fill: int, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Iterator[Array]:
    """For each place in a window, the plane of values that all windows have there: [n, c, oh, ow], views."""
    rows, columns = output_size(x.shape[2:], kernel_size, stride, padding, dilation)
    padded = module_of(x).full(
        (*x.shape[:2], *(s + 2 * p for s, p in zip(x.shape[2:], padding, strict=True))), fill, x.dtype
    )
    padded[:, :, padding[0] : padding[0] + x.shape[2], padding[1] : padding[1] + x.shape[3]] = x
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            part = padded[:, :, i * dilation[0] :: stride[0], j * dilation[1] :: stride[1]]
            yield part[:, :, :rows, :columns]


def widened(name: str, x: Tensor, form: Fixed, terms: int) -> Array:
    """Codes as integers that hold sums of so many: int64, or Python's, on the host."""
    if form.bits + added_bits(terms) <= 63:
        return x.storage.astype(np.int64)  # type: ignore[no-any-return]
    return on_host(name, x.storage).astype(object)


@implements("max_pool2d")
def max_pool2d(
    name: str, rule: Rule, x: Tensor, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair
) -> Outcome:
    (form,) = operands(name, x)
    first, *rest = taps(x.storage, form.min_code, kernel_size, stride, padding, dilation)
    out = first.copy()
    for tap in rest:
        module_of(out).maximum(out, tap, out=out)
    return chosen(name, rule, Tensor(out, form))


@implements("avg_pool2d")
def avg_pool2d(
    name: str, rule: Rule, x: Tensor, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Outcome:
    """The exact sum over the count, rounded once."""
    (form,) = operands(name, x)
    terms = prod(kernel_size)
    sums = widened(name, x, form, terms)
    first, *rest = taps(sums, 0, kernel_size, stride, padding, ONE)
    sums = first.copy()
    for tap in rest:
        sums += tap
    counts = np.array(terms)
    if not count_include_pad:
        ones = np.ones((1, 1, *x.shape[2:]), np.int64)
        counts = np.sum(list(taps(ones, 0, kernel_size, stride, padding, ONE)), axis=0)
    return shared(name, rule, form, sums, counts, sum_bounds(form, terms), x.device)


def _edges(size: int, count: int) -> tuple[Array, Array]:
    first, end = np.array(spans(size, count)).T
    return first, end


@implements("adaptive_max_pool2d")
def adaptive_max_pool2d(name: str, rule: Rule, x: Tensor, *, output_size: Pair) -> Outcome:
    """The largest of each window's rows, then of its columns."""
    (form,) = operands(name, x)
    out = x.storage
    for axis, count in zip((2, 3), output_size, strict=True):
        first, end = _edges(out.shape[axis], count)
        places = first[:, None] + np.arange(int((end - first).max()))
        places = np.minimum(places, end[:, None] - 1)  # short windows have their last value several times
        out = out.take(beside_codes(places, out), axis).max(axis + 1)
    return chosen(name, rule, Tensor(out, form))


@implements("adaptive_avg_pool2d")
def adaptive_avg_pool2d(name: str, rule: Rule, x: Tensor, *, output_size: Pair) -> Outcome:
    """The exact sum over the count, rounded once: windows are differences of running sums."""
    (form,) = operands(name, x)
    sums, counts = widened(name, x, form, prod(x.shape[2:])), np.ones((1, 1), np.int64)
    xp, wide = module_of(sums), sums.dtype
    for axis, count in zip((2, 3), output_size, strict=True):
        first, end = _edges(sums.shape[axis], count)
        before = xp.zeros((*sums.shape[:axis], 1, *sums.shape[axis + 1 :]), wide)
        running = xp.concatenate((before, xp.cumsum(sums, axis, wide)), axis)
        low, high = (beside_codes(edge, sums) for edge in (first, end))
        sums = running.take(high, axis) - running.take(low, axis)
        counts = counts * (end - first).reshape(-1, *[1] * (3 - axis))
    return shared(name, rule, form, sums, counts, sum_bounds(form, int(counts.max())), x.device)
