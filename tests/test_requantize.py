"""Kernels of quantised networks in every instruction set, against the definitions; and arguments that they must refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, AxisError, FormatError, ShapeError
from ulpgrad.formats import Affine, as_format
from ulpgrad.kernels import native
from ulpgrad.kernels.integer_pool import spec as pool
from ulpgrad.kernels.requantize.spec import requantize

NEEDS_NATIVE = pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
ISAS = [] if native.missing() else native.module().cpu_isas()
RNG = np.random.default_rng(0)


def reference(op: Any, arrays: tuple[Any, ...], params: dict[str, Any]) -> np.ndarray:
    return np.asarray(
        op.run_reference(arrays, tuple(None if a is None else as_format(a.dtype) for a in arrays), params)
    )


@NEEDS_NATIVE
@pytest.mark.parametrize("isa", ISAS)
def test_requantize_in_every_instruction_set(isa: str) -> None:
    for sample in requantize.samples():
        arrays, params = sample.arrays, dict(sample.params)
        options = {name: params[name] for name in ("axis", "zero_point", "low", "high")}
        got = native.module().requantize(
            *[None if a is None else np.ascontiguousarray(a) for a in arrays], **options, even=params["ties"] == "even",
            dtype=params["dtype"].storage, isa=isa,
        )  # fmt: skip
        assert (got == reference(requantize, arrays, params)).all(), sample.name


@NEEDS_NATIVE
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("form", [ug.int8, ug.uint8, ug.int16], ids=str)
def test_pooling_in_every_instruction_set(form: Any, isa: str) -> None:
    for op in (pool.integer_max_pool2d, pool.integer_avg_pool2d):
        for sample in op.samples():
            (x,), params = sample.arrays, dict(sample.params)
            codes = np.asarray(x).astype(form.storage)
            wanted = reference(op, (codes,), params)
            if "ties" in params:
                params["even"] = params.pop("ties") == "even"
            got = getattr(native.module(), op.name)(codes, **params, isa=isa)
            assert got.dtype == codes.dtype
            assert (got == wanted).all(), sample.name


@NEEDS_NATIVE
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_affine_codes_in_every_instruction_set(kind: str, isa: str) -> None:
    """At and beside every tie, where the quotient is rounded, and beyond both ends."""
    for form in (
        Affine("int8", 0.0137, 3),
        Affine("uint8", 1 / 3, 200),
        Affine("int8", 1e-30),
        Affine("uint8", 1e30, 128),
    ):
        ties = ((np.arange(-400, 400) + 0.5) * form.scale).astype(kind)
        x = np.concatenate([ties, np.nextafter(ties, ties.dtype.type(np.inf)), np.nextafter(ties, ties.dtype.type(-np.inf)),
                            np.array([0.0, -0.0, np.inf, -np.inf, 1e38, -1e38], kind)])  # fmt: skip
        scale, zero = np.atleast_1d(form.scale).astype(float), np.atleast_1d(form.zero_point).astype(float)
        given: dict[str, Any] = {"axis": -1, "is_signed": form.base == "int8", "isa": isa}
        codes, has_nan = native.module().quantize_affine(x, scale, zero, values=False, **given)
        assert not has_nan
        assert (codes == form.encode(x)).all()
        values, _ = native.module().quantize_affine(x, scale, zero, values=True, **given)
        assert (values == form.exact(codes).astype(kind)).all()
        assert native.module().quantize_affine(np.array([1.0, np.nan], kind), scale, zero, values=False, **given)[1]


def test_nan_has_no_affine_code() -> None:
    for function in (lambda x: x.to(Affine("int8", 1.0)), lambda x: ug.fake_quantize(x, Affine("int8", 1.0))):
        with pytest.raises(FormatError, match="NaN"):
            function(ug.asarray([1.0, float("nan")]))
    with pytest.raises(FormatError, match="2 channels on axis 0"):
        ug.zeros((3, 2)).to(Affine("int8", [1.0, 2.0], axis=0))


X, M, S = RNG.integers(-99, 99, (2, 3)).astype(np.int32), np.full(3, 2**30, np.int32), np.full(3, 31, np.int32)
OPTIONS: dict[str, Any] = {"axis": 1, "zero_point": 0, "low": -128, "high": 127, "ties": "up", "dtype": ug.int8}
WRONG: list[tuple[type[Exception], str, tuple[Any, ...], dict[str, Any]]] = [
    (FormatError, "dtype=float32: expected one of int8, uint8", (X, M, S, None), {"dtype": ug.float32}),
    (FormatError, "dtype=int64", (X, M, S, None), {"dtype": ug.int64}),
    (AxisError, "axis 2 is outside", (X, M, S, None), {"axis": 2}),
    (ArgumentError, "ties='odd'", (X, M, S, None), {"ties": "odd"}),
    (ArgumentError, "shift 63: expected 0 to 62", (X, M, S + 32, None), {}),
    (ArgumentError, "shift -1", (X, M, S - 32, None), {}),
    (ArgumentError, "multiplier -1", (X, np.full(3, -1, np.int32), S, None), {}),
    (ArgumentError, "clamp -129 to 127", (X, M, S, None), {"low": -129}),
    (ArgumentError, "clamp 5 to 4", (X, M, S, None), {"low": 5, "high": 4}),
    (ArgumentError, "zero_point 128 is outside int8", (X, M, S, None), {"zero_point": 128}),
    (ShapeError, r"multiplier has shape \(2,\): expected \(3,\)", (X, M[:2], S, None), {}),
    (FormatError, "bias is int64: expected int32", (X, M, S, np.zeros(3, np.int64)), {}),
    (FormatError, "a multiplier needs int32", (X.astype(np.int64), M, S, None), {}),
]


@pytest.mark.parametrize(("kind", "message", "arrays", "options"), WRONG, ids=[w[1] for w in WRONG])
def test_requantize_refuses(kind: Any, message: str, arrays: Any, options: dict[str, Any]) -> None:
    formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    with pytest.raises(kind, match=message):
        dispatch.call(requantize, formats, arrays, {**OPTIONS, **options})


def test_pooling_refuses() -> None:
    codes = np.zeros((1, 1, 4, 4), np.uint8)
    options: dict[str, Any] = {"kernel_size": (2, 2), "stride": (2, 2), "padding": (0, 0), "count_include_pad": True,
                               "padding_value": 0, "ties": "up"}  # fmt: skip
    for changed, message in (
        ({"ties": "down"}, "ties"),
        ({"padding_value": -1}, "no code of uint8"),
        ({"padding": (3, 3)}, "pad"),
    ):
        with pytest.raises(ArgumentError, match=message):
            dispatch.call(pool.integer_avg_pool2d, (ug.uint8,), (codes,), {**options, **changed})
    wide = np.zeros((1, 1, 200, 200), np.uint8)
    with pytest.raises(ArgumentError, match="at most 32768 values"):
        dispatch.call(pool.integer_avg_pool2d, (ug.uint8,), (wide,), {**options, "kernel_size": (200, 200)})


@NEEDS_NATIVE
def test_the_extension_refuses_what_it_cannot_read() -> None:
    module = native.module()
    good: dict[str, Any] = {
        "axis": 1,
        "zero_point": 0,
        "low": -128,
        "high": 127,
        "even": False,
        "dtype": np.dtype("i1"),
    }
    for arrays, changed, kind in (
        ((X.astype(np.float32), M, S, None), {}, TypeError), ((X.T, M, S, None), {}, ValueError),
        ((X, M[:2], S, None), {}, ValueError), ((X, M, S.astype(np.int64), None), {}, TypeError),
        ((X, M, S + 40, None), {}, ValueError), ((X, M, S, None), {"axis": 2}, ValueError),
        ((X, M, S, None), {"axis": -1}, ValueError), ((X, M, S, None), {"high": 128}, ValueError),
        ((X, M, S, None), {"zero_point": 200}, ValueError), ((X, M, S, None), {"dtype": np.dtype("f4")}, TypeError),
        ((X, -M, S, None), {}, ValueError), ((X.astype(np.int64), M, S, None), {}, TypeError),
    ):  # fmt: skip
        with pytest.raises(kind):
            module.requantize(*arrays, **{**good, **changed})
    x, one = np.zeros((2, 3), np.float32), np.ones(1)
    for arrays, axis, kind in (
        ((x.T, one, one), -1, ValueError), ((x, one, one), 1, ValueError), ((x, one, one), 2, ValueError),
        ((x, one.astype("f4"), one), -1, TypeError), ((x.astype(int), one, one), -1, TypeError),
    ):  # fmt: skip
        with pytest.raises(kind):
            module.quantize_affine(*arrays, axis=axis, is_signed=True, values=False)
    window: dict[str, Any] = {"kernel_size": (2, 2), "stride": (1, 1), "padding": (0, 0)}
    for images in (np.zeros((1, 1, 4, 4)), np.zeros((1, 4, 4), np.int8), np.zeros((1, 1, 8, 8), np.int8)[..., ::2],
                   np.zeros((1, 1, 1, 1), np.int8)):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            module.integer_max_pool2d(images, **window, dilation=(1, 1))
