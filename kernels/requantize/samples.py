"""Examples for requantize, and for products that end in it: channels first and last, ties, and the edges of 32 and 64 bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, int8, int16, int32, uint8
from ulpgrad.kernels.integer.spec import CASES
from ulpgrad.kernels.spec import Sample

TIES = ("up", "even")
RESULTS = (int8, uint8, int16, int32)


def samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)

    def settings(dtype: Format, **given: Any) -> dict[str, Any]:
        limits = np.iinfo(dtype.storage)
        usual = {
            "axis": 1,
            "zero_point": 0,
            "low": int(limits.min),
            "high": int(limits.max),
            "ties": "up",
            "dtype": dtype,
        }
        return {**usual, **given}

    def scales(channels: int) -> tuple[Array, Array]:
        return (rng.integers(2**30, 2**31, channels).astype(np.int32), rng.integers(38, 46, channels).astype(np.int32))

    shapes = (((5, 7), 1), ((3, 37), 1), ((2, 3, 5, 5), 1), ((2, 70), 1), ((4, 1), 1), ((7,), 0), ((0, 4), 1), ((2, 3, 4), 2),
              ((2, 2, 67), 1), ((3, 2, 0), 0))  # fmt: skip
    for shape, axis in shapes:
        c = shape[axis]
        x = rng.integers(-(2**19), 2**19, shape).astype(np.int32)
        bias = rng.integers(-5000, 5000, c).astype(np.int32)
        for dtype in RESULTS:
            yield Sample((x, *scales(c), bias), settings(dtype, axis=axis, zero_point=3), f"{shape} to {dtype}")
        yield Sample(
            (x, *scales(c), None), settings(uint8, axis=axis, zero_point=5, low=5, high=200, ties="even"), "relu"
        )
        shift = rng.integers(0, 12, c).astype(np.int32)
        for ties in TIES:
            for dtype in (int8, int16):
                few = rng.integers(-(2**12), 2**12, shape).astype(np.int32)  # many ties
                yield Sample(
                    (few, None, shift, None), settings(dtype, axis=axis, ties=ties), f"{shape} shifted, {ties}"
                )
            wide = rng.integers(-(2**40), 2**40, shape)
            at = (shift + 26).astype(np.int32)
            yield Sample(
                (wide, None, at, bias.astype(np.int64)), settings(int16, axis=axis, ties=ties), f"{shape} int64"
            )
    edges = np.array([[-(2**31), 2**31 - 1, -(2**31) + 1, 0, -1, 1, 2**30, 3, -3, 5, -5, 6, -6]]).astype(np.int32)
    most = np.full(13, 2**31 - 1, np.int32)
    for ties in TIES:
        for amount in (0, 1, 2, 31, 32, 33, 61, 62):
            shift, name = np.full(13, amount, np.int32), f"edges, shift {amount}, {ties}"
            for multiplier in (most, None, np.zeros(13, np.int32), np.full(13, 2**30, np.int32)):
                yield Sample((edges, multiplier, shift, most), settings(int32, ties=ties, zero_point=-1), name)
                yield Sample((edges, multiplier, shift, None), settings(uint8, ties=ties, zero_point=128), name)
            far = np.array([[-(2**63), 2**63 - 1, -(2**62), 2**62, *edges[0, 4:]]])
            yield Sample((far, None, shift, None), settings(int32, ties=ties, zero_point=9), "int64 " + name)
            yield Sample((far, None, shift, far[0]), settings(int16, ties=ties), "int64 and bias " + name)


def linear_samples() -> Iterator[Sample]:
    """Layers of every kind of code, in one row and many, over blocks of k and of columns."""
    rng = np.random.default_rng(1)
    shapes = ((1, 40, 7), (5, 200, 33), (50, 20, 70), (2, 1100, 5), (9, 0, 5), (0, 4, 3), (4, 3, 0))
    for i, (m, k, n) in enumerate(shapes):
        for weight_type in (np.int8, np.uint8, np.int16):
            limits = np.iinfo(weight_type)
            weight = rng.integers(max(limits.min, -200), min(limits.max, 200) + 1, (n, k)).astype(weight_type)
            x = rng.integers(-100, 200, (m, k)) / 1.0
            shift = rng.integers(36, 44, n).astype(np.int32)
            for wide in (False, True):
                bias = rng.integers(-5000, 5000, n).astype(np.int64 if wide else np.int32)
                multiplier = None if wide else rng.integers(2**30, 2**31, n).astype(np.int32)
                how = {
                    "accumulator": "int64" if wide else "int32",
                    "zero_point": 3,
                    "low": 3 if i % 2 else 0,
                    "high": 120,
                    "ties": TIES[wide],
                    "dtype": RESULTS[i % 4],
                }
                moved = (shift - 30).astype(np.int32) if wide else shift
                yield Sample((x, weight, multiplier, moved, bias), how, f"{m} x {k} x {n}, {how['accumulator']}")
    x, weight = rng.integers(-100, 200, (2, 3, 17)) / 1.0, rng.integers(-128, 128, (5, 17)).astype(np.int8)
    how = {"accumulator": "int32", "zero_point": 0, "low": -128, "high": 127, "ties": "even", "dtype": int8}
    yield Sample((x, weight, None, np.full(5, 5, np.int32), None), how, "leading axes, shifted")


def conv2d_samples() -> Iterator[Sample]:
    """Convolutions of every kind of code to every kind of result, with padding that is a zero point, groups and strides; and
    32-bit sums that wrap with their bias."""
    rng = np.random.default_rng(2)
    for i, (x, weight, stride, padding, dilation, groups, pad, name) in enumerate(CASES[:8] + CASES[9:14]):
        weight_type = (np.int8, np.uint8, np.int16)[i % 3]
        limits = np.iinfo(weight_type)
        filters = rng.integers(max(limits.min, -200), min(limits.max, 200) + 1, weight).astype(weight_type)
        for wide in (False, True):
            results = RESULTS[(i + wide) % 4]
            shift = rng.integers(5, 14, weight[0]).astype(np.int32)
            multiplier = None if wide or i % 4 == 3 else rng.integers(2**30, 2**31, weight[0]).astype(np.int32)
            most = 2**31 - 2**14 if not wide and i % 5 == 0 else 0
            bias = rng.integers(most - 5000, most + 5000, weight[0]).astype(np.int64 if wide else np.int32)
            how = {
                "accumulator": "int64" if wide else "int32",
                "zero_point": 3,
                "low": 3 if i % 2 else int(results.min),
                "high": 120 if i % 3 else int(results.max),
                "ties": TIES[(i + wide) % 2],
                "dtype": results,
            }
            geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "pad": pad}
            moved = shift if multiplier is None else (shift + 30).astype(np.int32)
            arrays = (rng.integers(-100, 200, x) / 1.0, filters, multiplier, moved, None if i % 7 == 6 else bias)
            yield Sample(arrays, {**geometry, **how}, f"{name}, {how['accumulator']} to {results}")
