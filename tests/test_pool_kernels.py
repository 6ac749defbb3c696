"""Pooling natively, beyond the registry's samples: images whose channels lie side by side, in every format and instruction
set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import Array, Format, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.adaptive_pool import spec as adaptive
from ulpgrad.kernels.pool import spec

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="needs the C++ extension")

ISAS = [] if native.missing() else native.module().cpu_isas()
FORMS = (float32, float64, bfloat16, float16)
ONE = (1, 1)
#       images          kernel  stride  padding dilation
CASES = (
    ((2, 3, 7, 6), (3, 3), (1, 1), (1, 1), ONE),
    ((2, 70, 9, 11), (2, 3), (2, 3), (1, 1), ONE),
    ((3, 17, 8, 8), (3, 2), (3, 4), (0, 1), ONE),
    ((1, 33, 10, 9), (3, 3), (1, 2), (1, 1), (2, 2)),
    ((2, 64, 7, 7), (7, 7), (7, 7), (0, 0), ONE),  # one window
    ((2, 2, 7, 7), (2, 7), (3, 1), (0, 0), ONE),  # of whole rows
)


def first(a: Array) -> Array:
    return np.ascontiguousarray(a)


def last(a: Array) -> Array:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@pytest.fixture(params=[first, last], ids=["channels first", "channels last"])
def lay(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Any:
    return request.param


def eighths(seed: int, shape: tuple[int, ...]) -> Array:
    """Exact in every format, and so are their sums."""
    return np.random.default_rng(seed).integers(-12, 13, shape) / 8


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding", "dilation"), CASES)
def test_largest(
    shape: Any, kernel: Any, stride: Any, padding: Any, dilation: Any, form: Format, lay: Any, isa: str
) -> None:
    x, how = eighths(0, shape), {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    x[0, 0, 1, 1], x[-1, -1, 2, 2], x[0, 1, :2] = np.nan, np.inf, -np.inf
    want, want_places = spec.max_pool2d.reference(x, **how)
    y, places = native.module().max_pool2d(lay(np.asarray(form.encode(x))), **how, isa=isa)
    np.testing.assert_array_equal(form.exact(first(y)), want)
    np.testing.assert_array_equal(places, want_places)
    g = eighths(1, want.shape)
    dx = native.module().max_pool2d_gradient(lay(np.asarray(form.encode(g))), lay(want_places), size=shape[2:], isa=isa)
    np.testing.assert_array_equal(
        form.exact(first(dx)), spec.max_pool2d_gradient.reference(g, want_places, size=shape[2:])
    )
    if lay is last and min(y.shape[2:]) > 1:
        assert y.strides[1] == y.itemsize == dx.strides[1]
        assert places.strides[1] == places.itemsize


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("included", [True, False])
@pytest.mark.parametrize(("shape", "kernel", "stride", "padding"), [c[:4] for c in CASES if c[4] == ONE])
def test_means(
    shape: Any, kernel: Any, stride: Any, padding: Any, included: bool, form: Format, lay: Any, isa: str
) -> None:
    x, how = (
        eighths(0, shape),
        {"kernel_size": kernel, "stride": stride, "padding": padding, "count_include_pad": included},
    )
    x[-1, -1, 2, 2] = np.inf
    unit = {float32: 2.0**-24, float64: 2.0**-53, bfloat16: 2.0**-8, float16: 2.0**-11}[form]
    want = spec.avg_pool2d.reference(x, **how)
    y = native.module().avg_pool2d(lay(np.asarray(form.encode(x))), **how, isa=isa)
    np.testing.assert_allclose(form.exact(first(y)), want, rtol=2 * unit)
    g = eighths(1, want.shape)
    dx = native.module().avg_pool2d_gradient(lay(np.asarray(form.encode(g))), size=shape[2:], **how, isa=isa)
    want = spec.avg_pool2d_gradient.reference(g, size=shape[2:], **how)
    np.testing.assert_allclose(form.exact(first(dx)), want, rtol=2 * unit, atol=16 * max(2.0**-53, min(unit, 2.0**-24)))


def test_gradient_and_places_may_lie_apart(lay: Any) -> None:
    x = eighths(0, (2, 5, 6, 6)).astype(np.float32)
    y, places = native.module().max_pool2d(
        lay(x), kernel_size=(2, 2), stride=(2, 2), padding=(0, 0), dilation=ONE
    )  # fmt: skip
    want = native.module().max_pool2d_gradient(first(y), first(places), size=(6, 6))
    for g in (first(y), last(y)):
        np.testing.assert_array_equal(native.module().max_pool2d_gradient(g, places, size=(6, 6)), want)
    with pytest.raises(IndexError, match="outside"):
        native.module().max_pool2d_gradient(y, places, size=(5, 5))


#  images             to
TO = (
    ((2, 3, 7, 6), (3, 4)),
    ((2, 70, 9, 11), (4, 11)),
    ((3, 17, 13, 37), (5, 19)),
    ((1, 33, 3, 2), (5, 7)),  # more windows than values
    ((2, 2, 6, 8), (3, 2)),  # windows alike
)


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("shape", "output"), TO)
def test_to_a_size(shape: Any, output: Any, form: Format, lay: Any, isa: str) -> None:
    x = eighths(0, shape)
    x[0, 0, 1, 1], x[-1, -1, 2, 1], x[0, 1, :2] = np.nan, np.inf, -np.inf
    codes = lay(np.asarray(form.encode(x)))
    want, want_places = adaptive.adaptive_max_pool2d.reference(x, output_size=output)
    y, places = native.module().adaptive_max_pool2d(codes, output_size=output, isa=isa)
    np.testing.assert_array_equal(form.exact(first(y)), want)
    np.testing.assert_array_equal(places, want_places)
    unit = {float32: 2.0**-24, float64: 2.0**-53, bfloat16: 2.0**-8, float16: 2.0**-11}[form]
    mean = native.module().adaptive_avg_pool2d(codes, output_size=output, isa=isa)
    np.testing.assert_allclose(
        form.exact(first(mean)), adaptive.adaptive_avg_pool2d.reference(x, output_size=output), rtol=2 * unit
    )
    g = eighths(1, want.shape)
    dx = native.module().adaptive_avg_pool2d_gradient(lay(np.asarray(form.encode(g))), size=shape[2:], isa=isa)
    wanted = adaptive.adaptive_avg_pool2d_gradient.reference(g, size=shape[2:])
    np.testing.assert_allclose(
        form.exact(first(dx)), wanted, rtol=2 * unit, atol=16 * max(2.0**-53, min(unit, 2.0**-24))
    )
    if lay is last:
        for found in (y, places, mean, dx):
            assert found.strides[1] == found.itemsize


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("shape", "output"), TO[:4])
def test_sums_of_windows_to_a_size_have_one_order(shape: Any, output: Any, form: Format, isa: str) -> None:
    """Row by row, from left to right, in float32 or float64: the bits are the same in either layout and instruction set."""
    wide = np.float64 if form is float64 else np.float32
    codes = np.asarray(form.encode(np.random.default_rng(0).normal(size=shape)))
    values = form.exact(codes).astype(wide)
    want = np.empty((*shape[:2], *output), wide)
    for i, rows in enumerate(adaptive.spans(shape[2], output[0])):
        for j, columns in enumerate(adaptive.spans(shape[3], output[1])):
            total = np.zeros(shape[:2], wide)
            for at in np.ndindex(rows[1] - rows[0], columns[1] - columns[0]):
                total += values[:, :, rows[0] + at[0], columns[0] + at[1]]
            want[:, :, i, j] = total / wide((rows[1] - rows[0]) * (columns[1] - columns[0]))
    for lay in (first, last):
        found = native.module().adaptive_avg_pool2d(lay(codes), output_size=output, isa=isa)
        np.testing.assert_array_equal(first(found), np.asarray(form.encode(want.astype(np.float64))))


def test_adaptive_pooling_refuses_sizes_of_nothing() -> None:
    x = np.ones((1, 1, 4, 4), np.float32)
    for output in ((0, 2), (2, -1)):
        with pytest.raises(ValueError, match="1 to 2"):
            native.module().adaptive_avg_pool2d(x, output_size=output)
