"""The native convolution beyond the registry's samples: layouts, what is not finite, sizes around its blocks, formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import windows

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="needs the C++ extension")

OPS = (spec.conv2d, spec.conv2d_input_gradient, spec.conv2d_weight_gradient)
SAME: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def problem(random: np.random.Generator, x: tuple[int, ...], weight: tuple[int, ...], **params: Any) -> dict[str, Any]:
    """The three calls of a convolution, by function name: exact operands and parameters."""
    params = {**SAME, **params}
    images, filters = random.normal(size=x), random.normal(size=weight)
    shape = spec.conv2d.run_reference((images, filters, None), (float64, float64, None), params).shape
    g = random.normal(size=shape)
    return {
        "conv2d": ((images, filters, random.normal(size=weight[0])), params),
        "conv2d_input_gradient": ((g, filters), {**params, "size": x[2:]}),
        "conv2d_weight_gradient": ((g, images), {**params, "size": weight[2:]}),
    }


def expect_right(name: str, arrays: Any, params: Any, form: Any = float32, **options: Any) -> np.ndarray:
    """Run natively in a format, and compare with the reference on the rounded operands."""
    op = next(op for op in OPS if op.name == name)
    stored = [np.asarray(form.encode(a)) for a in arrays]
    stored = [
        channels_last(s) if s.ndim == 4 and a.strides[1] == a.itemsize else s
        for s, a in zip(stored, arrays, strict=True)
    ]
    got = getattr(native.module(), name)(*stored, *([None] if name == "conv2d" and len(stored) == 2 else []), **params)
    exact = [form.exact(s) for s in stored]
    want, size = op.reference(*exact, *([None] * (name == "conv2d" and len(exact) == 2)), **params), op.magnitude
    sizes = size(*exact, *([None] * (name == "conv2d" and len(exact) == 2)), **params)  # type: ignore[misc]
    unit = {float32: 2.0**-24, float64: 2.0**-53, bfloat16: 2.0**-8, float16: 2.0**-11}[form]
    assert got.shape == want.shape
    error = np.abs(form.exact(got) - want)
    assert (
        error <= 8 * max(unit if form in (float32, float64) else 2.0**-24, 0) * sizes + unit * np.abs(want) + 1e-7
    ).all()
    return got


@pytest.mark.parametrize("form", [float32, float64, bfloat16, float16], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(
    ("x", "weight", "params"),
    [
        ((2, 33, 9, 17), (35, 33, 3, 3), {}),
        ((2, 16, 15, 14), (32, 16, 3, 3), {"stride": (2, 2)}),
        ((3, 64, 7, 7), (65, 64, 1, 1), {"padding": (0, 0)}),
        ((1, 20, 5, 70), (16, 20, 3, 5), {"padding": (2, 3), "dilation": (2, 1)}),
        ((2, 40, 12, 13), (40, 1, 3, 3), {"groups": 40}),
        ((2, 34, 6, 9), (51, 2, 3, 3), {"groups": 17, "stride": (2, 1)}),
        ((2, 1, 28, 28), (16, 1, 3, 3), {}),
        ((1, 130, 4, 4), (70, 130, 3, 3), {}),
        ((2, 5, 6, 70), (6, 5, 3, 2), {"stride": (1, 2), "padding": (0, 0)}),
        ((1, 1, 5, 69), (4, 1, 1, 1), {"stride": (2, 2), "padding": (0, 0)}),
        ((2, 48, 11, 39), (48, 1, 3, 3), {"groups": 48, "stride": (2, 2)}),
        ((2, 33, 8, 7), (33, 1, 1, 2), {"groups": 33, "stride": (3, 2), "padding": (1, 0)}),
        # few pixels: these lie in the lanes
        ((1, 70, 7, 7), (65, 70, 3, 3), {}),
        ((2, 40, 8, 8), (30, 40, 3, 3), {"padding": (2, 2), "dilation": (2, 2)}),
        ((1, 9, 15, 16), (20, 9, 3, 3), {"stride": (2, 2)}),
        ((3, 24, 4, 6), (18, 12, 2, 3), {"groups": 2, "padding": (0, 1)}),
        ((1, 300, 1, 1), (40, 300, 1, 1), {"padding": (0, 0)}),
    ],
)
def test_layouts_and_formats(random: Any, form: Any, last: bool, x: Any, weight: Any, params: Any) -> None:
    for name, (arrays, settings) in problem(random, x, weight, **params).items():
        given = tuple(channels_last(a) if last and a.ndim == 4 else a for a in arrays)
        got = expect_right(name, given, settings, form)
        if name != "conv2d_weight_gradient" and got.shape[1] > 1 and given[0].shape[1] > 1:
            assert (got.strides[1] == got.itemsize) == last or (got.flags.c_contiguous and not last)


@pytest.mark.parametrize("form", [float32, float64, bfloat16, float16], ids=str)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize(
    ("x", "weight", "window", "padding"),
    [
        ((2, 33, 9, 17), (35, 33, 3, 3), (2, 2), (1, 1)),
        ((9, 200, 7, 6), (70, 200, 3, 3), (3, 2), (1, 1)),  # weights larger than a piece, several images at a time
        ((1, 3, 5, 300), (16, 3, 3, 3), (2, 4), (0, 0)),
    ],
)
def test_pooled_in_every_layout_and_format(
    random: Any, form: Any, last: bool, x: Any, weight: Any, window: Any, padding: Any
) -> None:
    """Values that every format holds exactly: places are then those of float64 too."""
    lay = channels_last if last else np.ascontiguousarray
    images, filters = random.integers(-2, 3, x) / 2, random.integers(-1, 2, weight) / 8
    params = {**{k: v for k, v in SAME.items() if k != "groups"}, "padding": padding, "window": window}
    arrays = (lay(np.asarray(form.encode(images))), np.asarray(form.encode(filters)), None)
    got, places = native.module().conv2d_max_pool(*arrays, **params, activation="relu")
    want, want_places = spec.conv2d_max_pool.reference(images, filters, None, **params, activation="relu")
    np.testing.assert_array_equal(form.exact(got), form.exact(np.asarray(form.encode(want))))
    np.testing.assert_array_equal(places, want_places)
    assert (places.strides[1] == places.itemsize) == last


@pytest.mark.parametrize("bad", [np.inf, np.nan])
@pytest.mark.parametrize("groups", [1, 35])
def test_weights_that_are_not_finite_meet_padding(random: Any, bad: float, groups: int) -> None:
    """Taps that see only zeros are left out, but not where a weight makes NaN of these."""
    images = channels_last(random.integers(-4, 5, (2, 35, 6, 7)).astype(np.float32))
    weight = random.integers(-4, 5, (35, 35 // groups, 3, 3)).astype(np.float32)
    weight[20, 0, 0, 1] = bad
    params = {**SAME, "groups": groups}
    with np.errstate(invalid="ignore"):
        want = spec.conv2d.reference(images.astype(float), weight.astype(float), None, **params)
    np.testing.assert_array_equal(native.module().conv2d(images, weight, None, **params), want)


def test_errors_do_not_grow_with_the_length_of_sums(random: Any) -> None:
    """Sums are made of shorter ones: at 4608 terms the error is less than half of that of one chain."""
    x, weight = random.normal(size=(2, 512, 6, 6)), random.normal(size=(16, 512, 3, 3))
    x, weight = x.astype(np.float32), weight.astype(np.float32)
    want = spec.conv2d.reference(x.astype(float), weight.astype(float), None, **SAME)
    chain = np.zeros(want.shape, np.float32)
    seen = windows(x, (3, 3), (1, 1), (1, 1), (1, 1))
    for c, i, j in np.ndindex(512, 3, 3):
        chain += weight[:, c, i, j][:, None, None] * seen[:, c, None, :, :, i, j]
    error, plain = (np.linalg.norm(y - want) for y in (native.module().conv2d(x, weight, None, **SAME), chain))
    assert error < plain / 2


def test_both_layouts_give_the_same_bits(random: Any) -> None:
    for name, (arrays, params) in problem(random, (2, 24, 13, 15), (40, 24, 3, 3)).items():
        run = getattr(native.module(), name)
        first = [a.astype(np.float32) for a in arrays]
        last = [channels_last(a) if a.ndim == 4 else a for a in first]
        assert run(*first, **params).tobytes() == run(*last, **params).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("groups", [1, 4])
def test_weights_that_are_not_finite_meet_no_padding_in_the_input_gradient(
    random: Any, dtype: Any, bad: float, groups: int
) -> None:
    for stride in ((1, 1), (2, 1)):
        params = {**SAME, "stride": stride, "padding": (1, 2), "groups": groups, "size": (6, 7)}
        weight = random.integers(-4, 5, (8, 8 // groups, 3, 3)).astype(dtype)
        weight[2, 1, 0, 1] = bad
        positions = ((6 + 2 - 3) // stride[0] + 1, 7 + 4 - 3 + 1)
        g = random.integers(-4, 5, (2, 8, *positions)).astype(dtype)
        g[1, 3, 0, 0] = np.inf
        with np.errstate(invalid="ignore"):
            want = spec.conv2d_input_gradient.reference(g.astype(float), weight.astype(float), **params)
        np.testing.assert_array_equal(native.module().conv2d_input_gradient(g, weight, **params), want.astype(dtype))


def test_gradients_that_are_not_finite_meet_only_their_own_windows(random: Any) -> None:
    params = {**SAME, "size": (3, 3)}
    x, g = (
        random.integers(-4, 5, (2, 5, 6, 7)).astype(np.float32),
        random.integers(-4, 5, (2, 4, 6, 7)).astype(np.float32),
    )
    x[0, 1, 2, 6] = np.inf
    g[1, 2, 0, 0] = np.nan
    with np.errstate(invalid="ignore"):
        want = spec.conv2d_weight_gradient.reference(g.astype(float), x.astype(float), **params)
    np.testing.assert_array_equal(native.module().conv2d_weight_gradient(g, x, **params), want)


def test_windows_that_see_only_padding(random: Any) -> None:
    params: dict[str, Any] = {**SAME, "padding": (40, 0), "dilation": (30, 1)}
    for name, (arrays, settings) in problem(random, (1, 3, 5, 6), (4, 3, 3, 2), **params).items():
        expect_right(name, arrays, settings)


@pytest.mark.parametrize("small", [0, 1])
@pytest.mark.parametrize("name", ["conv2d", "conv2d_input_gradient", "conv2d_weight_gradient"])
def test_subnormal_bfloat16_is_not_zero(random: Any, name: str, small: int) -> None:
    """The unit for pairs of bfloat16 takes subnormal numbers for zero: such operands must not reach it."""
    arrays, params = problem(random, (2, 18, 9, 11), (20, 18, 3, 3))[name]
    given = [bfloat16.exact(bfloat16.encode(a)) for a in arrays[:2]]
    given[small] = np.sign(given[small]) * 2.0**-130
    given[1 - small] = given[1 - small] * 2.0**120
    got = expect_right(name, given, params, bfloat16)
    assert (bfloat16.exact(got) != 0).any()


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_bfloat16_gradients_that_are_not_finite(random: Any, bad: float) -> None:
    """A row of an odd number of positions ends in half a pair, whose other half must not count."""
    arrays, params = problem(random, (2, 18, 5, 7), (20, 18, 3, 3))["conv2d_weight_gradient"]
    g, x = (np.asarray(bfloat16.encode(a)) for a in arrays)
    x[1, 3, 0, 0] = bfloat16.encode(np.asarray(bad))
    with np.errstate(invalid="ignore"):
        want = spec.conv2d_weight_gradient.reference(bfloat16.exact(g), bfloat16.exact(x), **params)
    got = bfloat16.exact(native.module().conv2d_weight_gradient(g, x, **params))
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want))


def test_types_are_not_mixed(random: Any) -> None:
    x, weight = np.zeros((1, 2, 4, 4), np.float32), np.zeros((2, 2, 3, 3))
    with pytest.raises(TypeError, match="weight: expected float32 values, got float64"):
        native.module().conv2d(x, weight, None, **SAME)
    with pytest.raises(TypeError, match="x: expected floats, got int32"):
        native.module().conv2d(x.astype(np.int32), weight, None, **SAME)


@pytest.mark.skipif(native.missing() is not None, reason="the rung is of the C++ extension")
@pytest.mark.parametrize("form", [ug.float32, ug.float64, ug.bfloat16, ug.float16], ids=str)
@pytest.mark.parametrize(("image", "dilation"), [((1, 1), 3), ((3, 2), 1), ((4, 1), (1, 5))])
def test_one_position_is_a_product(form: Any, image: tuple[int, int], dilation: Any) -> None:
    """Forward, both gradients, and what follows: against the same in float64."""
    source = ug.Generator(3)
    wide = [
        ug.randn(*s, generator=source) for s in ((5, 6, *image), (7, 6, *image), (7,), (7,), (5, 7, 1, 1), (5, 7, 1, 1))
    ]
    x, w, b, s, r, g = (t.to(form) for t in wide)
    x = ug.permute_dims(ug.asarray(ug.permute_dims(x, (0, 2, 3, 1)), copy=True), (0, 3, 1, 2))  # channels last
    assert ug.explain("conv2d", x, w, b, dilation=dilation).taken == "cpu/native-position"
    found = []
    for this in (form, ug.float64):
        given = [t.to(this).detach() for t in (x, w, b)]
        for t in given:
            t.requires_grad_()
        y = ug.conv2d(*given, dilation=dilation, activation="relu")
        y.backward(g.to(this))
        with ug.no_grad():
            how = {"dilation": dilation, "activation": "relu", "scale": s.to(this), "residual": r.to(this)}
            after = [ug.conv2d(*given, **how, residual_first=first) for first in (False, True)]
        found.append([t.to(ug.float64).numpy() for t in (y.detach(), *after, *(t.grad for t in given))])  # type: ignore[union-attr]
    unit = {ug.float32: 2.0**-22, ug.float64: 2.0**-50, ug.bfloat16: 2.0**-7, ug.float16: 2.0**-10}[form]
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=unit, atol=8 * unit)
