"""Calibration: from values that were seen to the scale, or the radix point, of the codes that shall stand for them.

- `max`: the range of all values. Nothing saturates.
- `percentile`: the range without the largest values, which then saturate, so that one outlier does not coarsen all others.
- `mse`: the range whose codes have the smallest mean squared error, rounding and saturation together.

Every range holds zero, so that zero is a code: padding and ReLU are then exact. Source: Jacob et al. 2018, section 3;
Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Affine, Array, Fixed, Q
from ulpgrad.ops.common import as_tensor, normalize_axis

METHODS = ("max", "percentile", "mse")
PERCENTILE = 99.99
CANDIDATES = 100  # clipping ranges that "mse" looks at: hundredths of the largest
SAMPLE = 2**18  # values that "mse" measures errors of, evenly spaced where there are more
RADIX_POINTS = 8  # that "mse" looks at: each halves the range
SMALLEST_SCALE = 2.0**-900


def calibrate(
    values: Any,
    *,
    method: str = "max",
    axis: int | None = None,
    symmetric: bool = True,
    base: str = "int8",
    percentile: float = PERCENTILE,
) -> Affine:
    """The affine format for values like these (a tensor or array), with a scale per position on `axis` if it is given.

    `symmetric`: zero_point 0 (uint8: 128) and 127 steps to the largest magnitude; otherwise the 255 steps lie between the
    smallest and the largest value, and the zero point takes zero. Values that are all zero get scale 1. Raises ArgumentError
    without values, for NaN and infinities among them, or for an unknown method, base or percentile; AxisError.
    """
    x = seen(values, "calibrate", method, percentile)
    if base not in ("int8", "uint8"):
        raise ArgumentError(f"calibrate: base={base!r}: expected int8 or uint8")
    if axis is None:
        rows = x.reshape(1, -1)
    else:
        axis = normalize_axis("calibrate", axis, x.ndim)
        rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    low, high = spans(rows, method, percentile, symmetric)

    def steps(low: Array, high: Array) -> tuple[Array, Array]:
        return affine_steps(low, high, base, symmetric)

    if method == "mse":
        lowest, highest = (-128, 127) if base == "int8" else (0, 255)

        def error(low: Array, high: Array) -> Array:
            scale, zero = steps(low, high)
            return squared_error(sample(rows), scale, zero, lowest, highest)

        low, high = best_spans(low, high, symmetric, error)
    scale, zero = steps(low, high)
    return Affine(base, scale, zero, axis) if axis is not None else Affine(base, scale[0], zero[0])


def calibrate_fixed(
    values: Any, *, bits: int = 16, method: str = "max", signed: bool = True, percentile: float = PERCENTILE
) -> Fixed:
    """The fixed-point format of this word length (the sign included) for values like these: where its radix point lies.

    "max" and "percentile" take the most fraction bits with which the range still fits, after rounding; "mse" the radix point
    with the smallest mean squared error. Raises ArgumentError as `calibrate` does, or for negative values without a sign.
    """
    x = seen(values, "calibrate_fixed", method, percentile).reshape(1, -1)
    if not 2 <= bits <= 64:
        raise ArgumentError(f"calibrate_fixed: bits={bits!r}: expected a word of 2 to 64 bits")
    if not signed and x.min() < 0:
        raise ArgumentError(f"calibrate_fixed: {x.min()} has no code without a sign: take signed=True")
    low, high = (float(v[0]) for v in spans(x, method, percentile, symmetric=False))
    form = smallest_fitting(low, high, bits, signed)
    if method != "mse":
        return form
    few, best, least = sample(x), form, np.inf
    for m in range(form.integer_bits, form.integer_bits - min(RADIX_POINTS, bits), -1):
        candidate = Q(m, bits - signed - m, signed)
        error = squared_error(few, np.array([candidate.scale]), np.zeros(1), candidate.min_code, candidate.max_code)[0]
        if error < least:
            best, least = candidate, error
    return best


def smallest_fitting(low: float, high: float, bits: int, signed: bool = True) -> Fixed:
    """The format of this word length with the most fraction bits that holds low and high without saturation."""
    m = int(np.frexp(max(-low, high))[1]) - 1
    while True:
        form = Q(m, bits - signed - m, signed)
        if np.rint(low / form.scale) >= form.min_code and np.rint(high / form.scale) <= form.max_code:
            return form
        m += 1


def seen(values: Any, name: str, method: str, percentile: float) -> Array:
    """The values as float64, after all checks that both kinds of calibration share."""
    if method not in METHODS:
        raise ArgumentError(f"{name}: method={method!r}: expected one of {', '.join(METHODS)}")
    if not 50 < percentile <= 100:
        raise ArgumentError(f"{name}: percentile={percentile!r}: expected above 50, up to 100")
    tensor = as_tensor(values)
    x = np.asarray(tensor.dtype.exact(tensor.storage), dtype=np.float64)
    if x.size == 0:
        raise ArgumentError(f"{name}: no values to calibrate on: shape {x.shape}")
    if not np.isfinite(x).all():
        raise ArgumentError(
            f"{name}: NaN or an infinity among the values: no range holds them; look where they come from"
        )
    return x


def spans(rows: Array, method: str, percentile: float, symmetric: bool) -> tuple[Array, Array]:
    """Lowest and highest value of each row that codes shall reach; zero lies between them."""
    if method != "percentile":
        low, high = rows.min(1), rows.max(1)
    elif symmetric:
        high = np.percentile(np.abs(rows), percentile, axis=1)
        low = -high
    else:
        low, high = np.percentile(rows, [100 - percentile, percentile], axis=1)
    return np.minimum(low, 0.0), np.maximum(high, 0.0)


def affine_steps(low: Array, high: Array, base: str, symmetric: bool) -> tuple[Array, Array]:
    """Scale and zero point for ranges."""
    lowest, highest = (-128, 127) if base == "int8" else (0, 255)
    if symmetric:
        reach, count = np.maximum(-low, high), 127
    else:
        reach, count = high - low, highest - lowest
    scale = np.where(reach > 0, np.maximum(reach / count, SMALLEST_SCALE), 1.0)
    if symmetric:
        zero = np.full(scale.shape, (lowest + highest + 1) // 2)
    else:
        zero = np.clip(np.rint(lowest - low / scale), lowest, highest)
    return scale, zero.astype(np.int64)


def sample(rows: Array) -> Array:
    """At most about SAMPLE values, evenly spaced along each row."""
    return rows[:, :: max(1, rows.size // SAMPLE)]


def squared_error(rows: Array, scale: Array, zero: Array, lowest: float, highest: float) -> Array:
    """Mean squared error of each row's codes."""
    scale, zero = scale[:, None], zero[:, None]
    codes = np.clip(np.rint(rows / scale) + zero, lowest, highest)
    return np.asarray((((codes - zero) * scale - rows) ** 2).mean(1))


def best_spans(low: Array, high: Array, symmetric: bool, error: Callable[[Array, Array], Array]) -> tuple[Array, Array]:
    """For each row the range with the smallest error: both ends shrink together where codes are symmetric, else one
    after the other. The full range is among the candidates, so that the error never grows."""
    shares = np.arange(CANDIDATES, 0, -1) / CANDIDATES

    def search(candidates: Callable[[float], tuple[Array, Array]]) -> tuple[Array, Array]:
        best_low, best_high = candidates(1.0)
        least = error(best_low, best_high)
        for share in shares[1:]:
            at_low, at_high = candidates(share)
            found = error(at_low, at_high)
            better = found < least
            best_low, best_high = np.where(better, at_low, best_low), np.where(better, at_high, best_high)
            least = np.where(better, found, least)
        return best_low, best_high

    if symmetric:
        return search(lambda share: (low * share, high * share))
    low, high = search(lambda share, low=low, high=high: (low, high * share))  # type: ignore[misc]
    return search(lambda share, low=low, high=high: (low * share, high))  # type: ignore[misc]


__all__ = ["METHODS", "PERCENTILE", "calibrate", "calibrate_fixed", "smallest_fitting"]
