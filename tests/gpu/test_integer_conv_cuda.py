"""Convolution of codes on the matrix units: every pair of formats, sums that wrap and exact ones, groups, padding, widths."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import KernelError
from ulpgrad.formats import Format, int8, int16, uint8
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import cuda_units
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import Accumulator

SAME: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
RUNG = "cuda/cuda-matrix"
PAIRS = list(itertools.product((int8, uint8, int16), repeat=2))


def codes(form: Format, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Of the whole range, its ends among them."""
    info = np.iinfo(form.storage)
    values = np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(form.storage)
    values.flat[:2] = info.min, info.max
    return values


def run(x: np.ndarray, weight: np.ndarray, forms: tuple[Format, Format], **params: Any) -> np.ndarray:
    arrays = gpu.xp().asarray(x), gpu.xp().asarray(weight)
    with dispatch.use(integer_conv2d=RUNG):
        return gpu.to_host(
            dispatch.make_plan(spec.integer_conv2d, "cuda:0", forms, arrays, params).run(*arrays, **params)
        )


@pytest.mark.parametrize("forms", PAIRS, ids=lambda f: f"{f[0].name} {f[1].name}")
@pytest.mark.parametrize("accumulator", [None, "int64"])
def test_every_pair_of_formats(forms: tuple[Format, Format], accumulator: str | None) -> None:
    """Two tiles of rows and of columns, groups that fill no packet, codes of padding that are not 0; sums that wrap."""
    x, weight = codes(forms[0], (2, 10, 9, 10), 0), codes(forms[1], (140, 5, 3, 2), 1)
    params = {**SAME, "stride": (1, 2), "groups": 2, "pad": 77, "accumulator": accumulator}
    want = spec.integer_conv2d.reference(x, weight, **params)
    found = run(x, weight, forms, **params)
    assert found.dtype == want.dtype
    np.testing.assert_array_equal(found, want)
    if accumulator and int16 in forms and uint8 not in forms:
        assert np.abs(want).max() > 2**21


@pytest.mark.parametrize("forms", [(int16, int16), (uint8, int8)])
def test_wide_tiles_and_long_sums(forms: tuple[Format, Format], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_units, "MANY", 0)
    x, weight = codes(forms[0], (1, 40, 6, 7), 2), codes(forms[1], (130, 40, 3, 3), 3)
    np.testing.assert_array_equal(run(x, weight, forms, **SAME), spec.integer_conv2d.reference(x, weight, **SAME))
    x, weight = np.full((1, 3000, 1, 1), -(2**15), "i2"), np.full((8, 3000, 1, 1), -(2**15), "i2")
    params = {**SAME, "padding": (0, 0)}
    for accumulator in (None, "int64"):  # 3000 * 2^30: of 32 bits nothing is left
        want = spec.integer_conv2d.reference(x, weight, **params, accumulator=accumulator)
        np.testing.assert_array_equal(run(x, weight, (int16, int16), **params, accumulator=accumulator), want)
        assert want.any() == (accumulator is not None)


def test_images_and_results_lie_alike() -> None:
    x, weight = codes(int8, (2, 7, 6, 24), 4).transpose(0, 3, 1, 2), codes(int8, (20, 24, 3, 3), 5)
    on_gpu = gpu.xp().asarray(np.ascontiguousarray(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    given = on_gpu, gpu.xp().asarray(weight)
    plan = dispatch.make_plan(spec.integer_conv2d, "cuda:0", (int8, int8), given, SAME)
    assert plan.rung.name == RUNG
    y = plan.run(*given, **SAME)
    assert y.strides[1] == y.itemsize
    np.testing.assert_array_equal(gpu.to_host(y), spec.integer_conv2d.reference(x, weight, **SAME))


@pytest.mark.parametrize(
    ("shape", "accumulator", "reason"),
    [((1, 3, 4, 4), Accumulator(16, 4), "in 32 bits that wrap, or exactly in 64"),
     ((1, 33100, 1, 1), "int64", "exactly up to 33025 products, not 33100")],
)  # fmt: skip
def test_what_is_refused(shape: tuple[int, ...], accumulator: Any, reason: str) -> None:
    x, weight = np.ones(shape, "i1"), np.ones((1, shape[1], 1, 1), "i1")
    params = {**SAME, "padding": (0, 0), "accumulator": accumulator}
    with pytest.raises(KernelError, match=reason):
        run(x, weight, (int8, int8), **params)


def test_choice_is_made_anew_for_longer_sums() -> None:
    """Plans are kept by what rungs choose by."""
    keys = {
        str(
            spec.integer_conv2d.key(
                gpu.xp().zeros((1, c, 1, 1), np.int8), gpu.xp().zeros((1, c, 1, 1), np.int8), **SAME
            )
        )
        for c in (3, 33100)
    }
    assert len(keys) == 2
