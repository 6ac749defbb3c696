"""The CUDA rungs of pooling beyond the registry's samples: layouts, many gradients for one place, bits that repeat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.formats import Format, bfloat16, float16, float32, float64, int64
from ulpgrad.kernels import gpu, native, registry
from ulpgrad.kernels.adaptive_pool import spec as adaptive
from ulpgrad.kernels.pool import spec
from ulpgrad.kernels.spec import Op

RUNG = "cuda/cuda-direct"


def run(op: Op, formats: tuple[Format, ...], arrays: tuple[Any, ...], **params: Any) -> Any:
    given = tuple(map(on_device, arrays))
    with dispatch.use(**{op.name: RUNG}):
        return dispatch.make_plan(op, "cuda:0", formats, given, params).run(*given, **params)


def channels_last(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


def on_device(a: np.ndarray) -> Any:
    """As it lies: CuPy itself would put any other layout than C's or Fortran's in C's order."""
    if a.ndim == 4 and a.strides[1] == a.itemsize:
        return gpu.xp().asarray(np.ascontiguousarray(a.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    return gpu.xp().asarray(a)


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_results_lie_as_their_input_does(last: bool) -> None:
    lay = channels_last if last else np.ascontiguousarray
    x = np.random.default_rng(0).integers(-20, 20, (2, 5, 9, 7)) / 4
    window: dict[str, Any] = {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 1)}
    codes = lay(np.asarray(bfloat16.encode(x)))
    y, indices = run(spec.max_pool2d, (bfloat16,), (codes,), dilation=(1, 2), **window)
    want, places = spec.max_pool2d.reference(x, dilation=(1, 2), **window)
    np.testing.assert_array_equal(bfloat16.exact(gpu.to_host(y)), want)
    np.testing.assert_array_equal(gpu.to_host(indices), places)
    mean = run(spec.avg_pool2d, (bfloat16,), (codes,), count_include_pad=False, **window)
    want = bfloat16.encode(spec.avg_pool2d.reference(x, count_include_pad=False, **window))
    np.testing.assert_array_equal(gpu.to_host(mean), want)
    for found in (y, indices, mean):
        assert (found.strides[1] == found.itemsize) == last


@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_many_gradients_for_one_place_are_added_in_one_order(last: bool) -> None:
    random = np.random.default_rng(0)
    lay = channels_last if last else np.ascontiguousarray
    g, indices = random.normal(size=(2, 3, 9, 11)).astype("f"), random.integers(0, 4, (2, 3, 9, 11))
    indices[1, 2] = 13
    formats, arrays = (float32, int64), (lay(g), lay(indices))
    found = [gpu.to_host(run(spec.max_pool2d_gradient, formats, arrays, size=(5, 3))) for _ in range(2)]
    want = spec.max_pool2d_gradient.reference(g.astype(float), indices, size=(5, 3))
    np.testing.assert_allclose(found[0], want, rtol=0, atol=1e-5)
    assert found[0].tobytes() == found[1].tobytes()


def test_indices_outside_the_image_are_passed_over() -> None:
    """They are not looked for, since the program would wait for the device; nothing is written beside the image."""
    g, indices = np.ones((1, 1, 1, 4), "f"), np.array([[[[0, 6, -1, 5]]]])
    found = run(spec.max_pool2d_gradient, (float32, int64), (g, indices), size=(2, 3))
    np.testing.assert_array_equal(gpu.to_host(found), [[[[1, 0, 0], [0, 0, 1]]]])


FORMS = (float32, float64, float16, bfloat16)
TO = [((2, 3, 7, 9), (3, 4)), ((1, 5, 11, 6), (4, 6)), ((1, 2, 3, 2), (5, 7)), ((2, 3, 13, 9), (1, 1)),
      ((5, 1, 90, 110), (1, 1)), ((2, 3, 6, 50), (2, 1)), ((2, 3, 6, 8), (3, 4))]  # fmt: skip


@pytest.mark.skipif(native.missing() is not None, reason="needs the C++ extension")
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize(("shape", "output"), TO)
def test_pooling_to_a_size_has_the_bits_of_the_cpu(shape: Any, output: Any, form: Format, last: bool) -> None:
    """Windows that differ, whole rows in the tree of reductions, and the gradient."""
    random, lay = np.random.default_rng(0), channels_last if last else np.ascontiguousarray
    calls: tuple[tuple[Op, Any, dict[str, Any]], ...] = (
        (adaptive.adaptive_avg_pool2d, random.normal(size=shape), {"output_size": output}),
        (adaptive.adaptive_max_pool2d, random.normal(size=shape), {"output_size": output}),
        (adaptive.adaptive_avg_pool2d_gradient, random.normal(size=(*shape[:2], *output)), {"size": shape[2:]}),
    )
    for op, values, params in calls:
        codes = lay(np.asarray(form.encode(values)))
        rung = next(r for r in registry.ladder(op) if r.name == "cpu/native-windows")
        found, want = run(op, (form,), (codes,), **params), rung.run(codes, **params)
        for mine, its in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, want)), strict=True):
            np.testing.assert_array_equal(np.ascontiguousarray(gpu.to_host(mine)), np.ascontiguousarray(its))
