"""Example calls of elementwise ops: the special values of floats and integers, odd sizes, broadcasting, nothing at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels.elementwise.table import Row
from ulpgrad.kernels.spec import Sample

SPECIAL = np.array([
    0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 2.5, -3.5, np.inf, -np.inf, np.nan, 1e-40, -1e-40, 3e-6, -3e-6, 1e-20, 88.5, -88.5, -103.0,
    1e4, -1e4, 6e4, 1e30, -1e30, 3.3e38, 0.7071, 12.25, -14.0, 0.999, 1.001,
])  # fmt: skip
SHAPES: tuple[tuple[tuple[int, ...], ...], ...] = (((67,), (67,)), ((3, 5), (5,)), ((3, 1), (1, 5)), ((), (4,)),
                                                   ((), ()), ((0,), (0,)), ((2, 0), (1,)), ((1,), (1,)))  # fmt: skip


NOT_ZERO = ("floor_divide", "remainder", "pow", "bitwise_left_shift", "bitwise_right_shift")
RANGES = {"tanh_gradient": (-1.0, 1.0), "sigmoid_gradient": (0.0, 1.0)}


def _floats(rng: np.random.Generator, row: Row, index: int, shape: tuple[int, ...]) -> Array:
    """Normal ones; as integers too they make no divisor 0 and no exponent negative."""
    values = rng.normal(size=shape) * 3
    return np.asarray(np.abs(values) + 1 if index == 1 and row.name in NOT_ZERO else values)


def _integers(rng: np.random.Generator, row: Row, index: int, shape: tuple[int, ...]) -> Array:
    """Small ones, of both signs; divisors are not 0, exponents and shifts not negative."""
    return np.asarray(rng.integers(1, 4, shape) if index == 1 and row.name in NOT_ZERO else rng.integers(-5, 6, shape))


def _params(row: Row) -> list[dict[str, Any]]:
    if row.choice:
        return [{row.choice: value} for value in row.variants]
    if "low" in row.params:
        return [{"low": -1.5, "high": 0.75}, {"low": 0.5, "high": np.inf}, {"low": 1.0, "high": -1.0}]
    return [dict.fromkeys(row.params, 0.125)]


def samples(row: Row) -> Iterator[Sample]:
    """Example calls of a row's op."""
    rng = np.random.default_rng(0)
    operands, gradient = len(row.names()), row.name.endswith("_gradient")
    condition = row.name == "where"

    def call(arrays: list[Array | None], params: dict[str, Any], name: str) -> Sample:
        if condition:
            arrays = [np.asarray(rng.random(arrays[0].shape if arrays[0] is not None else ()) < 0.5), *arrays[1:]]
        return Sample(tuple(arrays), params, name)

    for params in _params(row):
        if row.takes not in ("bits", "integer") and row.name != "nextafter":  # whose steps depend on the format
            yield call(_special(row), params, "special values")
        for first, second in SHAPES:
            shapes = [second if (i and not gradient) else first for i in range(operands)]
            if row.takes not in ("bits", "integer"):
                yield call([_floats(rng, row, i, s) for i, s in enumerate(shapes)], params, f"floats {first} {second}")
            if row.takes != "float":
                integers: list[Array | None] = [_integers(rng, row, i, s) for i, s in enumerate(shapes)]
                yield call(integers, params, f"integers {first} {second}")
            if row.takes in ("bits", "any"):
                yield call([np.asarray(rng.random(s) < 0.5) for s in shapes], params, f"bools {first} {second}")
        if row.is_fused:
            yield call([rng.normal(size=40_000) * 3 for _ in range(operands)], params, "large")
    if row.name == "pow":
        for exponent in (-1.0, 0.0, 0.5, 1.0, 1.7, 2.0, 3.0):
            yield Sample((SPECIAL, np.array(exponent)), name=f"special values to the power of {exponent}")
    if row.name == "clip":
        x = np.linspace(-2, 2, 9)
        yield Sample((x, None, np.array(0.5)), name="no lower bound")
        yield Sample((x, np.array(-1.0), None), name="no upper bound")
        yield Sample((x, None, None), name="no bounds")


def _special(row: Row) -> list[Array | None]:
    """Every special value, against every other where there are two operands. Gradients are finite or NaN, and the results
    that some are computed from lie where such results can."""
    operands = len(row.names())
    if operands == 1:
        return [SPECIAL]
    first = np.array([0.0, -0.0, 1.0, -0.5, 3.25, -12.0, np.nan]) if row.name.endswith("_gradient") else SPECIAL
    second = np.clip(SPECIAL, *RANGES[row.name]) if row.name in RANGES else SPECIAL
    x, y = (np.ascontiguousarray(part).ravel() for part in np.meshgrid(first, second))
    return [x, y] if operands == 2 else [x, y, y[::-1].copy()]
