"""What the functions of the expression language mean: NumPy's and Python's own, each obviously right in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    """exp(-x^2 / 2) / sqrt(2 pi)."""
    return np.exp(-0.5 * (x * x)) * 0.3989422804014327


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in (
        "ceil", "copysign", "exp", "expm1", "floor", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "maximum",
        "minimum", "rint", "signbit", "sqrt", "tanh", "trunc", "where",
    )},
    "abs": np.absolute,
    "pow": np.power,
    "erf": _each(math.erf),
    "sigmoid": sigmoid,
    "normal_cdf": _each(lambda x: 0.5 * math.erfc(-x * math.sqrt(0.5))),
    "normal_density": normal_density,
}  # fmt: skip


def evaluator(formula: str, names: tuple[str, ...], functions: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """The formula as a function of its names, whole arrays at a time."""
    scope = {"__builtins__": {}, **functions}
    compiled: Callable[..., Any] = eval(f"lambda {', '.join(names)}: {formula}", scope)
    return compiled
