"""Conversions on a GPU have the CPU's bits: between all formats, over all codes where there are few, else over edges and random
values; in every rounding; NaN by class."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import FORMATS, Float, Format, Integer, as_format, bool_
from ulpgrad.kernels import capabilities, gpu
from ulpgrad.kernels.cast import convert

if capabilities.missing("triton") is not None:
    pytest.skip("Triton is not installed", allow_module_level=True)
from ulpgrad.kernels.cast import triton_bits

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
    """From every format."""
    for source in FORMS:
        if isinstance(target, Float) and not target.is_native and triton_bits.triton_round.refusal(target):
            continue
        stored = values_for(source, target)
        found = triton_bits.convert(gpu.to_device(stored), source, target)
        try:
            assert_same(found, convert(stored, source, target), target, f"{source} to {target}")
        except AssertionError as error:
            at = int(str(error).split(" at ")[1].split(" of ")[0])
            raise AssertionError(f"{error}; given {source.exact(stored[at : at + 1])[0]!r}") from None
