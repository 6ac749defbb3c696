"""Rounding in parallel loops of straight-line code, which LLVM turns into vectors: a float's significand is shifted to units of
the last place, and what falls out decides. Next limit: format and mode are numbers that a loop is given, so that one serves
all: forty operations for each value, where code made for a format would do with fifteen."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Fixed, Float, float32, float64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.grid import as_stored, has_nan, refusal
from ulpgrad.kernels.quantize.numba_round import (
    MODES,
    WHOLE,
    constants,
    drawn_whole,
    encoded,
    encoded_by,
    rounded_whole,
)
from ulpgrad.kernels.random.numba_blocks import random_bits as random_words
from ulpgrad.kernels.registry import Request, kernel


@jit(parallel=True)
def _encode(x: Any, out: Any, first: Any, mode: Any, limits: Any, table: Any) -> None:
    for i in prange(x.size):
        out[i] = encoded(x[i], first, mode, limits, table)


@jit(parallel=True)
def _encode_drawn(x: Any, out: Any, words: Any, random_bits: int, first: Any, limits: Any, table: Any) -> None:
    for i in prange(x.size):
        out[i] = encoded_by(words[i], random_bits, x[i], first, limits, table)


@jit(forceinline=True)
def _in_units(value: Any, scale: Any, most: Any, wraps: Any) -> Any:
    """A magnitude in units of the last place: at most `most`, or less than the modulus. wraps: the modulus and its reciprocal, or
    1 and 0."""
    modulus, reciprocal = wraps
    magnitude = abs(value) * scale
    magnitude = most if magnitude > most else magnitude
    magnitude = magnitude if magnitude < np.inf else 0.0
    return magnitude - np.floor(magnitude * reciprocal) * modulus


@jit(forceinline=True)
def _has_no_code(value: Any, most: Any) -> Any:
    """NaN, and infinity where values wrap: there nothing is the most."""
    return 1 if value != value or (abs(value) == np.inf and most == np.inf) else 0


@jit(forceinline=True)
def _word(near: Any, is_negative: Any, wraps: Any, low: Any, high: Any) -> Any:
    """A whole number in the range of codes."""
    modulus, reciprocal = wraps
    code = -near if is_negative else near
    code -= np.floor((code - low) * reciprocal) * modulus
    return np.int64(min(max(code, low), high))


@jit(parallel=True)
def _fixed(x: Any, out: Any, mode: Any, scale: float, most: float, wraps: Any, low: float, high: float) -> int:
    """Returns how many values have no code."""
    wild = 0
    for i in prange(x.size):
        value = np.float64(x[i])
        wild += _has_no_code(value, most)
        near = rounded_whole(_in_units(value, scale, most, wraps), value < 0.0, mode)
        out[i] = _word(near, value < 0.0, wraps, low, high)
    return wild


@jit(parallel=True)
def _fixed_drawn(x: Any, out: Any, words: Any, drop: Any, unit: float, scale: float, most: float, wraps: Any, low: float,
                 high: float) -> int:  # fmt: skip
    wild = 0
    for i in prange(x.size):
        value = np.float64(x[i])
        wild += _has_no_code(value, most)
        near = drawn_whole(_in_units(value, scale, most, wraps), words[i], drop, unit)
        out[i] = _word(near, value < 0.0, wraps, low, high)
    return wild


def float_codes(x: Array, form: Float, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
                random_bits: int) -> Array | None:  # fmt: skip
    """Codes in the format's storage; None where its own `encode` will raise."""
    out = np.empty(x.shape, f"u{form.itemsize}")
    flat, codes = x.reshape(-1), out.reshape(-1)
    fits_float32 = form.min_exponent >= -126 and form.mantissa_bits < 23 and form.bits < 32
    flat = flat if x.dtype == np.float64 or fits_float32 else flat.astype(np.float64)
    kind, bias = (np.int32, 127) if flat.dtype == np.float32 else (np.int64, 1023)
    first, known = kind(form.min_exponent + bias), constants(form, rounding, overflow, subnormals, kind)
    if rounding == "stochastic":
        words = random_words(key=key, counter=counter, size=x.size)
        _encode_drawn(flat, codes, words, random_bits, first, *known)
    else:
        _encode(flat, codes, first, tuple(map(kind, MODES[rounding])), *known)
    return None if form.nan_code is None and has_nan(x, out, form) else as_stored(out, form)


def fixed_codes(x: Array, form: Fixed, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
                random_bits: int) -> Array | None:  # fmt: skip
    """Codes in the format's storage; None where its own `encode` will raise."""
    out = np.empty(x.shape, f"i{form.itemsize}")  # unsigned codes have the same bits
    flat, codes = x.reshape(-1), out.reshape(-1)
    modulus, low, high = 2.0**form.bits, float(form.min_code), float(form.max_code)
    wraps, most = ((modulus, 1 / modulus), np.inf) if overflow == "wrap" else ((1.0, 0.0), high + 1.0)
    limits = 2.0**form.fraction_bits, most, wraps, low, high
    if rounding == "stochastic":
        words = random_words(key=key, counter=counter, size=x.size)
        wild = _fixed_drawn(flat, codes, words, np.uint32(32 - random_bits), 2.0**random_bits, *limits)
    else:
        wild = _fixed(flat, codes, WHOLE[rounding], *limits)
    return None if wild else out.view(form.storage)


def _where(request: Request) -> str | None:
    form, overflow = request.params["dtype"], request.params["overflow"]
    if isinstance(form, Float) and overflow == "raise":
        return "does not look for values to refuse (overflow='raise')"
    return refusal(form, overflow)


def _codes(x: Array, dtype: Any, **given: Any) -> Array:
    made = (float_codes if isinstance(dtype, Float) else fixed_codes)(x, dtype, **given)
    return np.asarray(spec.encoded(x, dtype=dtype, **given)) if made is None else made


@kernel(spec.quantize, "cpu/numba-bits", rank=20, formats=[float32, float64], where=_where, contiguous=True)
def quantize(x: Array, *, dtype: Any, **given: Any) -> Array:
    return _codes(x, dtype, **given)


@kernel(spec.fake_quantize, "cpu/numba-bits", rank=20, formats=[float32, float64], where=_where, contiguous=True)
def fake_quantize(x: Array, *, dtype: Any, **given: Any) -> Array:
    values: Array = dtype.decode(_codes(x, dtype, **given))
    return values.astype(x.dtype, copy=False)
