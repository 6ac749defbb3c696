"""Softmax: exp(x) / sum(exp(x)) along one axis, shifted by the maximum so that it never overflows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import AxisError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, float32, float64
from ulpgrad.kernels.spec import Op, Sample, first

ULPS: dict[Format, float] = {
    float32: 16,
    float64: 16,
}  # rows of a thousand values, added one after the other on the plain rungs


def shifted(x: Array, axis: int) -> Array:
    """x minus its maximum along the axis, so that exp stays within 0 to 1."""
    return x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)


def softmax_reference(x: Array, *, axis: int) -> Array:
    e = np.exp(shifted(x, axis))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def log_softmax_reference(x: Array, *, axis: int) -> Array:
    d = shifted(x, axis)
    return np.asarray(d - np.log(np.sum(np.exp(d), axis=axis, keepdims=True)))


def softmax_gradient_reference(g: Array, y: Array, *, axis: int) -> Array:
    return np.asarray(y * (g - np.sum(g * y, axis=axis, keepdims=True)))


def log_softmax_gradient_reference(g: Array, y: Array, *, axis: int) -> Array:
    return np.asarray(g - np.exp(y) * np.sum(g, axis=axis, keepdims=True))


def _check_axis(name: str, x: Array, axis: int) -> None:
    if not 0 <= axis < max(x.ndim, 1):
        raise AxisError(f"{name}: axis {axis} is outside the {x.ndim} axes of shape {x.shape}")
    if x.ndim == 0:
        raise ShapeError(f"{name}: expected at least one axis, got a scalar; x.reshape((1,)) makes it a row of one")


def _check(name: str) -> Any:
    def check(x: Array, *, axis: int) -> None:
        _check_axis(name, x, axis)

    return check


def _check_gradient(name: str) -> Any:
    def check(g: Array, y: Array, *, axis: int) -> None:
        _check_axis(name, y, axis)
        if g.shape != y.shape:
            raise ShapeError(f"{name}: the gradient's shape {g.shape} is not the result's shape {y.shape}")

    return check


def _inputs() -> Iterator[tuple[Array, int]]:
    rng = np.random.default_rng(0)
    for shape, axis in (((3, 5), 1), ((3, 5), 0), ((2, 3, 4), 1), ((7,), 0), ((1,), 0), ((2, 67), 1), ((3, 257), 1),
                        ((0, 4), 1), ((4, 0), 1), ((5, 1), 1), ((2, 1030), 1)):  # fmt: skip
        yield rng.standard_normal(shape) * 3, axis
    yield rng.standard_normal((4, 33)) * 50, 1
    yield rng.standard_normal((4, 33)) - 3e4, 1
    edges = rng.standard_normal((4, 19))
    edges[0, 3], edges[1, 5], edges[2, :18] = -np.inf, np.nan, -np.inf
    edges[3] = -np.inf  # 0/0: NaN, as IEEE says
    yield edges, 1


def _samples() -> Iterator[Sample]:
    for x, axis in _inputs():
        yield Sample((x,), {"axis": axis}, name=f"{x.shape} axis {axis}")


def _gradient_samples(forward: Any) -> Any:
    def samples() -> Iterator[Sample]:
        rng = np.random.default_rng(1)
        with np.errstate(all="ignore"):
            for x, axis in _inputs():
                y = forward(x, axis=axis)
                yield Sample(
                    (np.asarray(rng.standard_normal(x.shape)), y), {"axis": axis}, name=f"{x.shape} axis {axis}"
                )

    return samples


def _softmax_magnitude(x: Array, *, axis: int) -> Array:
    """The rounding of x - max, relative to 1, becomes a relative error of exp: |x - max| units."""
    d = shifted(x, axis)
    return np.asarray(softmax_reference(x, axis=axis) * (1 - np.where(np.isfinite(d), d, 0)))


def _log_softmax_magnitude(x: Array, *, axis: int) -> Array:
    return 1 + np.abs(log_softmax_reference(x, axis=axis))


def _softmax_gradient_magnitude(g: Array, y: Array, *, axis: int) -> Array:
    return np.asarray(np.abs(y) * (np.abs(g) + np.sum(np.abs(g * y), axis=axis, keepdims=True)))


def _log_softmax_gradient_magnitude(g: Array, y: Array, *, axis: int) -> Array:
    return np.asarray(np.abs(g) + np.exp(y) * (1 + np.abs(y)) * np.sum(np.abs(g), axis=axis, keepdims=True))


softmax = Op(
    "softmax",
    signature="(x: [..., n, ...], *, axis) -> [..., n, ...]",
    doc="exp(x) / sum(exp(x)) along an axis. A row of -inf gives NaN; one -inf among others gives 0.",
    reference=softmax_reference,
    check=_check("softmax"),
    result=first,
    formats=FLOATS,
    flops=lambda x, **_: 5 * x.size,  # maximum, subtraction, exp, sum, scaling, each counted as one
    samples=_samples,
    ulps=ULPS,
    magnitude=_softmax_magnitude,
)

log_softmax = Op(
    "log_softmax",
    signature="(x: [..., n, ...], *, axis) -> [..., n, ...]",
    doc="log(softmax(x)) along an axis, without the underflow of taking them one after the other.",
    reference=log_softmax_reference,
    check=_check("log_softmax"),
    result=first,
    formats=FLOATS,
    flops=lambda x, **_: 5 * x.size,
    samples=_samples,
    ulps=ULPS,
    magnitude=_log_softmax_magnitude,
)

softmax_gradient = Op(
    "softmax_gradient",
    signature="(g: [..., n, ...], y: [..., n, ...], *, axis) -> [..., n, ...]",
    doc="Gradient of softmax from its result: y (g - sum(g y)).",
    reference=softmax_gradient_reference,
    check=_check_gradient("softmax_gradient"),
    formats=FLOATS,
    flops=lambda g, y, **_: 4 * y.size,
    samples=_gradient_samples(softmax_reference),
    ulps=ULPS,
    magnitude=_softmax_gradient_magnitude,
)

log_softmax_gradient = Op(
    "log_softmax_gradient",
    signature="(g: [..., n, ...], y: [..., n, ...], *, axis) -> [..., n, ...]",
    doc="Gradient of log_softmax from its result: g - exp(y) sum(g).",
    reference=log_softmax_gradient_reference,
    check=_check_gradient("log_softmax_gradient"),
    formats=FLOATS,
    flops=lambda g, y, **_: 4 * y.size,
    samples=_gradient_samples(log_softmax_reference),
    ulps=ULPS,
    magnitude=_log_softmax_gradient_magnitude,
)
