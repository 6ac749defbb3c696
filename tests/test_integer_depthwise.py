"""Integer convolution of single channels: every instruction set, layout and pair of types, at random and extreme codes."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.formats import as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.integer import spec

RUNGS = {r.name: r for r in registry.ladder(spec.integer_conv2d) if "native" in r.name}
TYPES = (np.int8, np.uint8, np.int16)
CASES = [  # x, filters, stride, padding: rows shorter and longer than vectors, several filters of one channel
    ((2, 19, 7, 9), (19, 1, 3, 3), (1, 1), (1, 1)),
    ((1, 9, 5, 150), (18, 1, 3, 2), (1, 1), (0, 3)),
    ((1, 8, 6, 141), (8, 1, 3, 3), (2, 2), (1, 1)),
    ((2, 3, 9, 30), (3, 1, 5, 5), (2, 1), (2, 2)),
    ((1, 2, 450, 40), (4, 1, 2, 3), (1, 2), (1, 0)),  # planes that are cut
    ((1, 2, 2, 3), (2, 1, 17, 16), (1, 1), (9, 8)),  # more products than bytes of int16 allow in 32 bits
]


def codes(rng: np.random.Generator, kind: str, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    info = np.iinfo(dtype)
    if kind == "random":
        return rng.integers(info.min, info.max + 1, shape).astype(dtype)
    return np.full(shape, info.min or info.max if kind == "least" else info.max, dtype)


@pytest.mark.parametrize("kind", ["random", "least", "greatest"])
@pytest.mark.parametrize("rung", RUNGS)
def test_depthwise(rung: str, kind: str) -> None:
    if reason := RUNGS[rung].unavailable():
        pytest.skip(reason)
    rng = np.random.default_rng(7)
    for (shape, filters, stride, padding), left, right in itertools.product(CASES, TYPES, TYPES):
        x, weight = codes(rng, kind, left, shape), codes(rng, kind, right, filters)
        formats = as_format(x.dtype), as_format(weight.dtype)
        params = {"stride": stride, "padding": padding, "dilation": (1, 1), "groups": shape[1], "pad": 5}
        exact = spec.integer_conv2d.reference(x, weight, **params, accumulator="int64")
        for images in (x, x.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2), x[..., ::-1].copy()[..., ::-1]):
            for accumulator in ("int32", "int64"):
                given = {**params, "accumulator": accumulator}
                with dispatch.use(integer_conv2d=rung):
                    got = dispatch.call(spec.integer_conv2d, formats, (images, weight), given)[0]
                np.testing.assert_array_equal(got, exact.astype(accumulator))
