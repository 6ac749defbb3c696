"""Native convolution of volumes in every layout and format; what follows the sums of a convolution has the bits of the steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.conv.geometry import output_size
from ulpgrad.kernels.conv3d import spec

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="needs the C++ extension")

SAME: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
DEEP: dict[str, Any] = {"stride": (1, 1, 1), "padding": (1, 1, 1), "dilation": (1, 1, 1), "groups": 1}
UNIT = {float32: 2.0**-24, float64: 2.0**-53, bfloat16: 2.0**-8, float16: 2.0**-11}


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


@pytest.mark.parametrize("form", [float32, float64, bfloat16, float16], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(
    ("x", "weight", "params"),
    [
        ((2, 33, 5, 9, 17), (35, 33, 3, 3, 3), {}),
        ((1, 18, 9, 13, 12), (20, 18, 3, 3, 3), {"stride": (2, 2, 2)}),
        ((2, 6, 7, 5, 6), (9, 2, 2, 3, 2), {"stride": (2, 1, 3), "dilation": (2, 1, 1), "groups": 3}),
        ((1, 40, 5, 6, 7), (40, 1, 3, 3, 3), {"groups": 40}),
        ((2, 17, 4, 5, 6), (20, 17, 1, 1, 1), {"padding": (0, 0, 0)}),
        ((1, 1, 30, 4, 5), (6, 1, 5, 1, 2), {"padding": (2, 0, 1)}),
        ((1, 70, 2, 5, 5), (30, 70, 2, 2, 2), {"padding": (0, 0, 0)}),
    ],
)
def test_volumes_in_every_layout_and_format(form: Any, last: bool, x: Any, weight: Any, params: Any) -> None:
    random, lay = np.random.default_rng(0), channels_last if last else np.ascontiguousarray
    params = {**DEEP, **params}
    volumes, filters = random.normal(size=x), random.normal(size=weight)
    size = output_size(x[2:], weight[2:], *(params[n] for n in ("stride", "padding", "dilation")))
    g = random.normal(size=(x[0], weight[0], *size))
    calls: dict[str, Any] = {
        "conv3d": ((volumes, filters, random.normal(size=weight[0])), params),
        "conv3d_input_gradient": ((g, filters), {**params, "size": x[2:]}),
        "conv3d_weight_gradient": ((g, volumes), {**params, "size": weight[2:]}),
    }
    for name, (arrays, settings) in calls.items():
        stored = [np.asarray(form.encode(a)) for a in arrays]
        given = [lay(s) if s.ndim == 5 and a is not filters else s for s, a in zip(stored, arrays, strict=True)]
        got = getattr(native.module(), name)(*given, **settings)
        op, exact = getattr(spec, name), [form.exact(s) for s in stored]
        want, sizes = op.reference(*exact, **settings), op.magnitude(*exact, **settings)
        assert got.shape == want.shape
        unit = UNIT[form]
        error = np.abs(form.exact(got) - want)
        assert (error <= 8 * (unit if form is float64 else 2.0**-24) * sizes + unit * np.abs(want) + 1e-7).all()
        if name != "conv3d_weight_gradient" and got.shape[1] > 1 and given[0].shape[1] > 1:
            assert (got.strides[1] == got.itemsize) == last


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_weights_of_volumes_that_are_not_finite_meet_no_padding_in_the_gradient(bad: float) -> None:
    random = np.random.default_rng(0)
    g, weight = random.normal(size=(2, 5, 3, 4, 6)), random.normal(size=(5, 3, 3, 3, 3))
    weight[2, 1, 0, 2, 1] = bad
    params: dict[str, Any] = {**DEEP, "size": (3, 4, 6)}
    with np.errstate(invalid="ignore"):
        want = spec.conv3d_input_gradient.reference(g, weight, **params)
    got = native.module().conv3d_input_gradient(g, weight, **params)
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))
    kept = np.isfinite(want)
    np.testing.assert_allclose(got[kept], want[kept], rtol=1e-11, atol=1e-11)


def test_windows_of_volumes_that_see_only_padding() -> None:
    random = np.random.default_rng(0)
    x, weight = random.normal(size=(1, 3, 2, 5, 6)), random.normal(size=(4, 3, 3, 3, 2))
    params: dict[str, Any] = {**DEEP, "padding": (20, 0, 3), "dilation": (15, 1, 1)}
    want = spec.conv3d.reference(x, weight, None, **params)
    np.testing.assert_allclose(native.module().conv3d(x, weight, None, **params), want, rtol=1e-11, atol=1e-11)
    g = random.normal(size=want.shape)
    got = native.module().conv3d_weight_gradient(g, x, **params, size=(3, 3, 2))
    np.testing.assert_allclose(
        got, spec.conv3d_weight_gradient.reference(g, x, **params, size=(3, 3, 2)), rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(
    ("x", "weight", "groups"),
    [
        ((2, 16, 19, 8), (24, 16, 3, 3), 1),
        ((1, 32, 12, 33), (32, 32, 3, 3), 1),
        ((1, 20, 9, 9), (20, 1, 3, 3), 20),  # lanes of groups
        ((1, 32, 9, 9), (32, 1, 3, 3), 32),  # in place, where channels lie side by side
        ((2, 8, 16, 6), (12, 2, 1, 1), 4),
        ((1, 16, 7, 7), (40, 16, 3, 3), 1),  # lanes of pixels
        ((9, 200, 7, 6), (70, 200, 3, 3), 1),  # weights larger than a piece
    ],
)
def test_what_follows_the_sums_has_the_bits_of_the_steps(
    kind: Any, last: bool, x: Any, weight: Any, groups: int
) -> None:
    random = np.random.default_rng(0)
    images, filters = random.normal(size=x).astype(kind), random.normal(size=weight).astype(kind)
    images = channels_last(images) if last else images
    how = {**SAME, "padding": (weight[2] // 2,) * 2, "groups": groups}
    bias, scale = (random.normal(size=weight[0]).astype(kind) for _ in range(2))
    sums = native.module().conv2d(images, filters, None, **how)
    added = random.normal(size=sums.shape).astype(kind)
    for b, s, r, first in (
        (bias, scale, added, True), (bias, scale, channels_last(added), False), (None, scale, None, False),
        (bias, None, added, True), (bias, None, channels_last(added), True), (bias, None, added, False),
        (None, None, added[:, :, ::-1], False), (bias, scale, None, False),
    ):  # fmt: skip
        want = sums
        if s is None and not (r is not None and first):
            want = native.module().conv2d(images, filters, b, **how)  # sums start from the bias
        else:
            want = want if s is None else want * s[:, None, None]
            want = want if b is None else want + b[:, None, None]
            want = want + r if r is not None and first else want
        want = np.where(want < 0, kind(0), want)
        want = want if r is None or first else want + r
        got = native.module().conv2d_finished(images, filters, b, s, r, activation="relu", residual_first=first, **how)
        np.testing.assert_array_equal(got, want)
        assert got.strides == sums.strides


def test_what_follows_the_sums_is_checked() -> None:
    x, weight = np.zeros((1, 2, 4, 4), np.float32), np.zeros((3, 2, 3, 3), np.float32)
    ones = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="scale"):
        native.module().conv2d_finished(x, weight, None, ones[:2], None, **SAME)
    with pytest.raises(ValueError, match="residual"):
        native.module().conv2d_finished(x, weight, None, ones, x, **SAME)
    with pytest.raises(TypeError, match="residual"):
        native.module().conv2d_finished(x, weight, None, None, np.zeros((1, 3, 4, 4)), **SAME)
