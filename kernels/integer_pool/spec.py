"""Pooling of codes: the maximum of codes is the code of the maximum, and the mean of codes, rounded once to the nearest, that of
the mean. Padding is no code for a maximum, and a code of the caller's (its zero point) for a mean."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array, int8, int16, uint8
from ulpgrad.kernels.adaptive_pool.spec import CASES as TO_A_SIZE, adaptive_avg_pool2d, spans
from ulpgrad.kernels.conv.geometry import Pair, output_size, windows
from ulpgrad.kernels.pool import spec as pool
from ulpgrad.kernels.spec import Op, Sample

TIES = ("up", "even")
CODES = (int8, uint8, int16)
LARGEST_WINDOW = 2**15  # whose sum of 16-bit codes fits 32 bits
ONE = (1, 1)


def _on_image(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """Which places of each window lie on the image: [1, 1, oh, ow, kh, kw]."""
    return windows(np.ones((1, 1, *x.shape[2:]), np.int64), kernel_size, stride, padding, dilation) > 0


def _max(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    geometry = (kernel_size, stride, padding, dilation)
    seen = np.where(_on_image(x, *geometry), windows(x.astype(np.int64), *geometry), -(2**20))
    return np.asarray(seen.max((-2, -1)))


def _avg(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool, padding_value: int, ties: str
) -> Array:
    geometry = (kernel_size, stride, padding, ONE)
    real = _on_image(x, *geometry)
    padded = padding_value if count_include_pad else 0
    sums = np.where(real, windows(x.astype(np.int64), *geometry), padded).sum((-2, -1))
    counts = np.full((), prod(kernel_size)) if count_include_pad else real.sum((-2, -1))
    return rounded_mean(sums, counts, ties)


def rounded_mean(sums: Array, counts: Array, ties: str) -> Array:
    """sums / counts to the nearest integer."""
    mean, rest = np.divmod(2 * sums + counts, 2 * counts)
    return np.asarray(mean - ((rest == 0) & (mean % 2 == 1)) if ties == "even" else mean)


def _adaptive_avg(x: Array, *, output_size: Pair, ties: str) -> Array:
    y = np.empty((*x.shape[:2], *output_size), np.int64)
    for i, rows in enumerate(spans(x.shape[2], output_size[0])):
        for j, columns in enumerate(spans(x.shape[3], output_size[1])):
            seen = x[:, :, slice(*rows), slice(*columns)].astype(np.int64)
            y[:, :, i, j] = rounded_mean(seen.sum((-2, -1)), np.asarray(prod(seen.shape[2:])), ties)
    return y


def _check_max(x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair) -> None:
    assert pool.max_pool2d.check is not None
    pool.max_pool2d.check(x, kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)


def _check_avg(
    x: Array, *, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool, padding_value: int, ties: str
) -> None:
    assert pool.avg_pool2d.check is not None
    pool.avg_pool2d.check(
        x, kernel_size=kernel_size, stride=stride, padding=padding, count_include_pad=count_include_pad
    )
    if ties not in TIES:
        raise ArgumentError(f"integer_avg_pool2d: ties={ties!r}: expected one of {', '.join(TIES)}")
    if prod(kernel_size) > LARGEST_WINDOW:
        raise ArgumentError(f"integer_avg_pool2d: kernel_size {kernel_size}: expected at most {LARGEST_WINDOW} values")
    limits = np.iinfo(x.dtype)
    if not limits.min <= padding_value <= limits.max:
        raise ArgumentError(f"integer_avg_pool2d: padding_value {padding_value} is no code of {x.dtype}")


def _check_adaptive_avg(x: Array, *, output_size: Pair, ties: str) -> None:
    assert adaptive_avg_pool2d.check is not None
    adaptive_avg_pool2d.check(x, output_size=output_size)
    if ties not in TIES:
        raise ArgumentError(f"integer_adaptive_avg_pool2d: ties={ties!r}: expected one of {', '.join(TIES)}")


def _codes(shape: tuple[int, ...], seed: int) -> Array:
    """Values that every format holds, which are many enough to tie and few enough to differ."""
    return np.random.default_rng(seed).integers(0, 128, shape)


def _max_samples() -> Iterator[Sample]:
    for shape, kernel_size, stride, padding, dilation, name in pool.CASES:
        params = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "dilation": dilation}
        yield Sample((_codes(shape, 0),), params, name)
        yield Sample((_codes(shape, 1) - 128,), params, name + ", negative or above 127")


def _avg_samples() -> Iterator[Sample]:
    for shape, kernel_size, stride, padding, dilation, name in pool.CASES:
        for ties in TIES if dilation == ONE else ():
            for count_include_pad in (False, True):
                params = {"kernel_size": kernel_size, "stride": stride, "padding": padding, "padding_value": 7,
                          "count_include_pad": count_include_pad, "ties": ties}  # fmt: skip
                yield Sample((_codes(shape, 0),), params, f"{name}, ties {ties}")
                yield Sample((_codes(shape, 1) % 3 - 128,), params, f"{name}, ties {ties}, few codes")


def _adaptive_samples() -> Iterator[Sample]:
    for shape, size, name in TO_A_SIZE:
        for ties in TIES:
            yield Sample((_codes(shape, 0),), {"output_size": size, "ties": ties}, f"{name}, ties {ties}")
            yield Sample(
                (_codes(shape, 1) % 3 - 128,), {"output_size": size, "ties": ties}, f"{name}, ties {ties}, few codes"
            )


integer_max_pool2d = Op(
    "integer_max_pool2d",
    "(x: [n, c, h, w], *, kernel_size, stride, padding, dilation) -> [n, c, oh, ow]",
    _max,
    doc="The largest code of each window. Padding is never chosen.",
    check=_check_max,
    formats=CODES,
    samples=_max_samples,
)

integer_avg_pool2d = Op(
    "integer_avg_pool2d",
    "(x: [n, c, h, w], *, kernel_size, stride, padding, count_include_pad, padding_value, ties) -> [n, c, oh, ow]",
    _avg,
    doc="The mean of each window, rounded to the nearest code (`ties`: up or even); padding counts as padding_value with "
    "count_include_pad, and not at all without.",
    check=_check_avg,
    formats=CODES,
    flops=lambda x, *, kernel_size, stride, padding, **_: float(
        prod(x.shape[:2]) * prod(output_size(x.shape[2:], kernel_size, stride, padding, ONE)) * prod(kernel_size)
    ),
    samples=_avg_samples,
)

integer_adaptive_avg_pool2d = Op(
    "integer_adaptive_avg_pool2d",
    "(x: [n, c, h, w], *, output_size, ties) -> [n, c, oh, ow]",
    _adaptive_avg,
    doc="The mean of each of oh x ow windows, as adaptive_avg_pool2d has them, rounded to the nearest code (`ties`: up or even).",
    check=_check_adaptive_avg,
    formats=CODES,
    flops=lambda x, **_: float(x.size),
    samples=_adaptive_samples,
    key=lambda x, *, output_size, ties: (x.shape[2:], output_size),
)

__all__ = ["CODES", "ONE", "integer_adaptive_avg_pool2d", "integer_avg_pool2d", "integer_max_pool2d", "rounded_mean"]
