"""What the functions of the expression language mean: NumPy's and Python's own, each obviously right in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array


def _each(function: Callable[[float], float]) -> Callable[[Any], Array]:
    """A function of one float, applied to every element in float64."""
    vectorized = np.vectorize(function, otypes=[np.float64])
    return lambda x: np.asarray(vectorized(x))


def sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), with the exponential of whichever sign does not overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x < 0, small, 1) / (1 + small)


def normal_density(x: Any) -> Any:
    """exp(-x^2 / 2) / sqrt(2 pi), the exponent in an exact and a small part: rounding x^2 would be magnified by x^2."""
    size = np.minimum(np.abs(x), 50)  # beyond, it is 0
    high = np.rint(size * 64) / 64
    return np.exp(-0.5 * high * high) * np.exp(-0.5 * (size - high) * (size + high)) * 0.3989422804014327


def normal_cdf(x: Any) -> Any:
    """erfc(-x / sqrt(2)) / 2, with the rounding of the argument taken back by the slope: it would be magnified by x^2."""
    x = np.clip(x, -50, 50)
    argument, lost = _times_sqrt_half(-x)
    return 0.5 * _each(math.erfc)(argument) - lost * math.sqrt(2) * normal_density(x)


def _times_sqrt_half(x: Any) -> tuple[Any, Any]:
    """x sqrt(1/2), and what rounding it lost, by Dekker's product of halves that multiply exactly."""
    factor, factor_rest = math.sqrt(0.5), -4.833646656726457e-17
    product = x * factor
    (x_high, x_low), (f_high, f_low) = _halves(x), _halves(factor)
    lost = ((x_high * f_high - product) + x_high * f_low + x_low * f_high) + x_low * f_low
    return product, lost + x * factor_rest


def _halves(x: Any) -> tuple[Any, Any]:
    scaled = x * 134217729.0  # 2^27 + 1
    high = scaled - (scaled - x)
    return high, x - high


_NUMPY = (
    "ceil copysign cos cosh exp expm1 floor floor_divide hypot isfinite isinf isnan log log10 log1p log2 maximum minimum "
    "remainder rint signbit sin sinh sqrt tan tanh trunc where"
)
_INVERSE = ("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh")
FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in _NUMPY.split()},
    **{name: getattr(np, name.replace("a", "arc", 1)) for name in _INVERSE},
    "abs": np.absolute,
    "erf": _each(math.erf),
    "sigmoid": sigmoid,
    "normal_cdf": normal_cdf,
    "normal_density": normal_density,
}


def evaluator(formula: str, names: tuple[str, ...], functions: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The formula as a function of its names, whole arrays at a time. It is compiled when it is first called: all of them would
    take a tenth of the time that importing ulpgrad does."""

    @cache
    def compiled() -> Callable[..., Any]:
        function: Callable[..., Any] = eval(f"lambda {', '.join(names)}: {formula}", {"__builtins__": {}, **functions})
        return function

    return lambda *arrays, **params: compiled()(*arrays, **params)
