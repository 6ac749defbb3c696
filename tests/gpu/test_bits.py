"""Conversions on a GPU have the CPU's bits: between all formats, over all codes where there are few, else over edges and random
values; in every rounding; NaN by class."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import FormatError
from ulpgrad.formats import (
    FORMATS,
    ROUNDINGS,
    Affine,
    Block,
    Float,
    Format,
    Integer,
    as_format,
    bool_,
    float32,
    float64,
)
from ulpgrad.kernels import capabilities, gpu
from ulpgrad.kernels.accumulate import spec as accumulate_spec
from ulpgrad.kernels.cast import convert, spec as cast_spec
from ulpgrad.kernels.quantize import spec as quantize_spec
from ulpgrad.kernels.random import spec as random_spec
from ulpgrad.kernels.spec import Op

if capabilities.missing("triton") is not None:
    pytest.skip("Triton is not installed", allow_module_level=True)
from ulpgrad.kernels.cast import triton_bits
from ulpgrad.kernels.quantize import triton_round

# Beside those of the table: mantissas from none to 22 bits, biases, codes that break ties, ranges of float64
MORE = ("e6m9", "e8m22", "e5m10fnuz", "e6m9b60", "e11m4", "e8m7fn", "e7m0fnu", "e9m3", "binary8p3se", "binary8p1se",
        "binary8p4ue", "binary6p2sf", "e4m18", "e2m0none", "e8m3fnu")  # fmt: skip
FORMS: list[Format] = [f for f in FORMATS.values() if f.kind in ("float", "integer", "bool")] + [
    as_format(n) for n in MORE
]
FLOATS = [f for f in FORMS if isinstance(f, Float)]


@cache
def edges(form: Float, kind: Any) -> np.ndarray:
    """Values of a format, what lies halfway between them, and the neighbours of both in a NumPy type."""
    count = 1 << (form.bits - form.signed)
    codes = np.unique(np.r_[: min(count, 40), max(count - 40, 0) : count, form.max_code - 3 : form.max_code + 1])
    if count > 80:
        codes = np.unique(np.r_[codes, np.random.default_rng(0).integers(0, count, 300)])
    with np.errstate(all="ignore"):
        values = form.exact(codes.astype(f"u{form.itemsize}").view(form.storage))
        values = np.sort(values[np.isfinite(values)])
        between = np.r_[
            values, (values[1:] + values[:-1]) / 2, values[-1] + (values[-1] - values[-2]) * np.r_[0.5, 1, 3]
        ]
        between = between.astype(kind)
        near = [np.nextafter(between, kind(to)) for to in (-np.inf, np.inf)]
    return np.concatenate([between, *near, -between, *(-n for n in near)])


@cache
def values_for(source: Format, target: Format) -> np.ndarray:
    """Stored values of one format that try a conversion to another."""
    rng = np.random.default_rng(1)
    if source is bool_:
        return np.array([False, True])
    if isinstance(source, Integer):
        powers = [s * (2**k + d) for k in range(source.bits) for d in (-1, 0, 1) for s in (1, -1)]
        some = [v for v in powers if source.min <= v <= source.max] + [source.min, source.max]
        return np.r_[np.array(some, source.storage), rng.integers(source.min, source.max, 500, source.storage, True)]
    assert isinstance(source, Float)
    if source.bits <= 16:
        whole = np.arange(1 << source.bits, dtype=np.uint32).astype(f"u{source.itemsize}").view(source.storage)
        stored = whole if source.bits <= 10 else np.r_[whole[:64], whole[-64:], rng.choice(whole, 1500, False)]
    elif source.is_native:
        special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1 + 2.0**-8 + 2.0**-40, 1.5], source.storage)
        bits = rng.integers(0, 2 ** (8 * source.itemsize), 600, f"u{source.itemsize}").view(source.storage)
        small = rng.normal(0, 100, 300).astype(source.storage)
        stored = np.r_[special, bits, small, edges(target, source.storage.type) if isinstance(target, Float) else small]
    else:
        stored = rng.integers(0, 2**source.bits, 1000).astype(f"u{source.itemsize}")
    exact = source.exact(stored)
    with np.errstate(all="ignore"):
        if isinstance(target, Integer):
            whole = np.trunc(exact)
            return stored[(whole >= float(target.min)) & (whole < float(target.max + 1))]
        if isinstance(target, Float) and target.nan_code is None:
            return stored[~np.isnan(exact)]
    return stored


def assert_same(found: Any, wanted: np.ndarray, form: Format, what: str) -> None:
    """Equal bits, or NaN in both."""
    got = gpu.to_host(found)
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), what
    bits = f"u{form.itemsize}"
    same = got.view(bits) == wanted.view(bits)
    if isinstance(form, Float):
        same |= np.isnan(form.exact(got)) & np.isnan(form.exact(wanted))
    if not same.all():
        at = int(np.flatnonzero(~same)[0])
        raise AssertionError(f"{what}: at {at} of {len(same)}: {got[at]!r}, on the CPU {wanted[at]!r}")


@pytest.mark.parametrize("target", FORMS, ids=str)
def test_casts(target: Format) -> None:
    """From every format; those beside the table meet those that hardware knows."""
    native = [f for f in FORMS if f.is_native and f.bits >= 32]
    for source in FORMS:
        if (target.name in MORE and source not in native) or (source.name in MORE and target not in native):
            continue
        if isinstance(target, Float) and not target.is_native and triton_round.refusal(target):
            continue
        stored = values_for(source, target)
        found = triton_bits.convert(gpu.to_device(stored), source, target)
        try:
            assert_same(found, convert(stored, source, target), target, f"{source} to {target}")
        except AssertionError as error:
            at = int(str(error).split(" at ")[1].split(" of ")[0])
            raise AssertionError(f"{error}; given {source.exact(stored[at : at + 1])[0]!r}") from None


def on_both(
    op: Op, formats: tuple[Format, ...], arrays: tuple[np.ndarray, ...], **params: Any
) -> Iterator[tuple[Any, Any]]:
    """Results of the GPU's highest Triton rung that takes the call, and of what the CPU takes."""
    given = tuple(map(gpu.to_device, arrays))
    plan = dispatch.make_plan(op, "cuda:0", formats, given, params)
    assert plan.rung.name.startswith("cuda/triton"), plan.rung
    found, wanted = plan.run(*given, **params), dispatch.call(op, formats, arrays, params)[0]
    several = isinstance(wanted, tuple)
    yield from zip(found, wanted, strict=True) if several else [(found, wanted)]


@pytest.mark.parametrize("form", [f for f in FLOATS if f.bits <= 32 and not triton_round.refusal(f)], ids=str)
def test_roundings(form: Float) -> None:
    """To every float in every mode: codes, and the values in place of them."""
    for i, rounding in enumerate(ROUNDINGS):
        source = (float32, float64)[i % 2]
        x = values_for(source, form)[i % 2 :: 2]
        params = quantize_spec.OPTIONS | {"dtype": form, "rounding": rounding, "overflow": (None, "saturate")[i // 2 % 2],
                                          "subnormals": i != 5, "key": 7, "counter": 2**64 - 2,
                                          "random_bits": (24, 32, 3)[i % 3]}  # fmt: skip
        what = f"{source} to {form}, {rounding}, {params['overflow']}, subnormals={params['subnormals']}"
        for found, wanted in on_both(quantize_spec.quantize, (source,), (x,), **params):
            assert_same(found, wanted, form, what)
        if i % 3 == 0:
            for found, wanted in on_both(quantize_spec.fake_quantize, (source,), (x,), **params):
                assert_same(found, wanted, source, f"values: {what}")


@pytest.mark.parametrize("name", ["q7.8", "uq8.8", "q0.7", "q-3.20", "q11.20", "uq32.0", "int8", "uint8"])
def test_whole_numbers(name: str) -> None:
    """To fixed point and affine codes, in every mode."""
    form = Affine(name, 0.125, 5) if name.endswith("int8") else as_format(name)
    rng = np.random.default_rng(0)
    step = float(form.spacing(np.zeros(1))[0])
    x = np.concatenate([rng.integers(-999, 999, 700) * step / 8, rng.normal(0, 1e6, 300), [0.0, -0.0, 1e300, -1e300]])
    for rounding in ROUNDINGS:
        for overflow in ("saturate", "wrap") if form.kind == "fixed" else (None,):
            for source in (float64, float32):
                with np.errstate(all="ignore"):
                    values = x.astype(source.storage)
                    values = values[np.isfinite(values)]
                params = quantize_spec.OPTIONS | {"dtype": form, "rounding": rounding, "overflow": overflow, "key": 3}
                for found, wanted in on_both(quantize_spec.quantize, (source,), (values,), **params):
                    assert_same(found, wanted, form, f"{source} to {form}, {rounding}, {overflow}")
            for found, wanted in on_both(quantize_spec.fake_quantize, (source,), (values,), **params):
                assert_same(found, wanted, source, f"values: {source} to {form}, {rounding}, {overflow}")


@pytest.mark.parametrize("form", [f for f in FORMATS.values() if isinstance(f, Block)], ids=str)
def test_blocks(form: Block) -> None:
    """Codes and scales of blocks along both axes, over all scales, and the values that they stand for."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((22, 67)) * 2.0 ** rng.integers(-140, 127, (22, 1))).astype(np.float32)
    x[::7] *= 2.0 ** rng.integers(-12, 0, (4, 67)).astype(np.float32)
    x[3, 5], x[4, 40], x[5], x[6, :33] = np.nan, np.inf, 0.0, np.float32(2**100 * (1 - 2.0**-24))
    for axis in (0, 1):
        for i, rounding in enumerate(ROUNDINGS if axis and form.rule == "floor" else ROUNDINGS[:2]):
            params = quantize_spec.OPTIONS | {"dtype": form, "axis": axis, "rounding": rounding, "subnormals": i != 1}
            pairs = list(on_both(quantize_spec.block_quantize, (float32,), (x,), **params))
            for (found, wanted), stored in zip(pairs, (form.element, as_format("uint8")), strict=True):
                assert_same(found, wanted, as_format(wanted.dtype), f"{form}, axis {axis}, {rounding}, {stored}")
    codes, scales = (wanted for _, wanted in pairs)
    kinds = as_format(codes.dtype), as_format(scales.dtype)
    for found, wanted in on_both(quantize_spec.block_dequantize, kinds, (codes, scales), dtype=form, axis=1):
        assert_same(found, wanted, float32, f"values of {form}")


@pytest.mark.parametrize(
    ("values", "target", "overflow"),
    [([1.0, np.nan], "float6_e3m2fn", None), ([1.0, 1e9], "float8_e4m3fn", "raise"), ([np.inf], "float16", "raise"),
     ([np.nan], "q7.8", None), ([1000.0], "q7.8", "raise"), ([np.inf], "q7.8", "wrap")],
)  # fmt: skip
def test_values_without_a_code_raise(values: list[float], target: str, overflow: str | None) -> None:
    """The CPU's error, at the call."""
    form = as_format(target)
    params = quantize_spec.OPTIONS | {"dtype": form, "overflow": overflow}
    x = np.array(values * 9)
    with pytest.raises(FormatError) as on_cpu:
        dispatch.call(quantize_spec.quantize, (float64,), (x,), params)
    with pytest.raises(FormatError) as on_gpu:
        dispatch.call(quantize_spec.quantize, (float64,), (gpu.to_device(x),), params)
    assert str(on_gpu.value) == str(on_cpu.value)


@pytest.mark.parametrize(
    ("value", "target"), [(np.nan, "int8"), (np.nan, "float4_e2m1fn"), (2.0**63, "int64"), (-1.0, "uint8")]
)
def test_casts_of_values_without_a_code_raise(value: float, target: str) -> None:
    with pytest.raises(FormatError):
        dispatch.call(
            cast_spec.cast, (float64,), (gpu.to_device(np.array([1.0, value])),), {"dtype": as_format(target)}
        )


def test_casts_keep_the_layout() -> None:
    """Channels last, and columns first."""
    x = gpu.to_device(np.arange(120, dtype=np.float32).reshape(2, 3, 4, 5)).transpose(0, 3, 1, 2)
    found = triton_bits.convert(x, float32, as_format("bfloat16"))
    assert [s // 2 for s in found.strides] == [s // 4 for s in x.strides]
    assert np.array_equal(as_format("bfloat16").exact(gpu.to_host(found)), gpu.to_host(x))


@pytest.mark.parametrize("edge", random_spec.EDGES, ids=str)
def test_random_streams(edge: dict[str, int]) -> None:
    """The same words, uniform and normal values as on the CPU, over the edges of the counter."""
    small = edge | {"size": min(edge["size"], 2100)}
    ops = [(random_spec.random_bits, {}, as_format("uint32"))]
    for form in random_spec.FLOATS:
        ops += [(random_spec.random_uniform, {"dtype": form}, form), (random_spec.random_normal, {"dtype": form}, form)]
    for op, more, form in ops:
        for found, wanted in on_both(op, (), (), **small, **more):
            assert_same(found, wanted, form, f"{op.name} of {form}")


@pytest.mark.parametrize("form", [float32, float64, as_format("bfloat16"), as_format("float16")], ids=str)
def test_dropout(form: Float) -> None:
    """The same values are dropped, and the rest scaled to the same bits."""
    x = form.encode(np.random.default_rng(0).standard_normal(1500))
    for p in (0.0, 0.3, 1.0):
        for found, wanted in on_both(random_spec.dropout, (form,), (x,), p=p, key=2**63 + 5, counter=2**64 - 3):
            assert_same(found, wanted, form, f"p={p}")


@pytest.mark.parametrize("rule", accumulate_spec.RULES, ids=lambda r: " ".join(map(str, r.values())))
def test_accumulators(rule: dict[str, Any]) -> None:
    """Products in a chosen accumulator, each partial sum rounded as on the CPU."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal(s).astype(np.float32) * np.float32(3) for s in ((3, 11), (11, 35)))
    how = rule | {"format": as_format(rule["format"])}
    for found, wanted in on_both(accumulate_spec.accumulate_matmul, (float32, float32), (a, b), **how):
        assert_same(found, wanted, float32, str(rule))
