"""Fixed point and affine codes: a value in units of its format, rounded to a whole number in float64, where both are exact, and
clamped or wrapped. Limited by float64 arithmetic, of which the divisions of affine codes are most.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Affine, Fixed, Format, float32, float64
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.quantize import spec
from ulpgrad.kernels.quantize.grid import MODE
from ulpgrad.kernels.quantize.triton_round import AWAY, DOWN, EVEN, ODD, STOCHASTIC, UP, ZERO
from ulpgrad.kernels.random.triton_philox import stream, words
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 1024


@triton.jit
def whole_value(magnitude, negative, word, MODE: tl.constexpr, BITS: tl.constexpr):
    """A magnitude, float64 and below 2^52, as a whole number."""
    low = tl.floor(magnitude)
    part = magnitude - low
    odd = (low.to(tl.int64) & 1) == 1
    if MODE == EVEN:
        up = (part > 0.5) | ((part == 0.5) & odd)
    elif MODE == AWAY:
        up = part >= 0.5
    elif MODE == ZERO:
        up = part < 0
    elif MODE == UP:
        up = (part > 0) & (negative == 0)
    elif MODE == DOWN:
        up = (part > 0) & negative
    elif MODE == ODD:
        up = (part > 0) & (odd == 0)
    else:
        digits = part * (1 << BITS)
        count = tl.floor(digits).to(tl.int64)
        rest = digits - tl.floor(digits)
        count += ((rest > 0.5) | ((rest == 0.5) & ((count & 1) == 1))).to(tl.int64)
        up = count + (word >> (32 - BITS)).to(tl.int64) >= (1 << BITS)
    return low + up.to(tl.float64)


@triton.jit
def _fixed(
    x, out, failed, n, k0, k1, c0, c1, c2, c3,
    SCALE: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr, MODULUS: tl.constexpr, STEP: tl.constexpr,
    NOTHING_BEYOND: tl.constexpr, MODE: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    mask = lane < n - first
    value = tl.load(x + first + lane, mask=mask, other=0).to(tl.float64)
    word = words(first, k0, k1, c0, c1, c2, c3, BLOCK) if MODE == STOCHASTIC else 0
    negative = value < 0
    low, high = tl.full([], LOW, tl.float64), tl.full([], HIGH, tl.float64)
    size = tl.abs(value)
    infinity = float("inf")
    wrong = value != value
    if MODULUS > 0 or NOTHING_BEYOND:
        wrong = wrong | (size == infinity)
    units = size * SCALE
    if MODULUS > 0:
        units = tl.where(units < infinity, units, 0.0)  # what is beyond float64 in units is a multiple of all words
        units -= tl.floor(units / MODULUS) * MODULUS
    else:
        units = tl.where(units < high + 1, units, high + 1)
    near = whole_value(units, negative, word, MODE, BITS)
    code = tl.where(negative, -near, near)
    if NOTHING_BEYOND:
        wrong = wrong | (code < low) | (code > high)
    if MODULUS > 0:
        code -= tl.floor((code - low) / MODULUS) * MODULUS
    else:
        code = tl.where(code < low, low, tl.where(code > high, high, code))
    code = tl.where(wrong, 0.0, code)
    result = code.to(tl.int64).to(tl.float64) * STEP if STEP > 0 else code.to(tl.int64)
    tl.store(out + first + lane, result.to(out.dtype.element_ty), mask=mask)
    tl.store(failed, 1, mask=tl.max((wrong & mask).to(tl.int32), 0) != 0)


@triton.jit
def _affine(
    x, out, scales, zeros, failed, n, channels, inner, k0, k1, c0, c1, c2, c3,
    LOW: tl.constexpr, HIGH: tl.constexpr, VALUES: tl.constexpr, NOTHING_BEYOND: tl.constexpr, MODE: tl.constexpr,
    BITS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    mask = lane < n - first
    channel = (first + lane) // inner % channels
    scale = tl.load(scales + channel, mask=mask, other=1.0)
    zero = tl.load(zeros + channel, mask=mask, other=0.0)
    value = tl.load(x + first + lane, mask=mask, other=0).to(tl.float64)
    word = words(first, k0, k1, c0, c1, c2, c3, BLOCK) if MODE == STOCHASTIC else 0
    negative = value < 0
    low, high = tl.full([], LOW, tl.float64), tl.full([], HIGH, tl.float64)
    wrong = value != value
    units = tl.abs(value) / scale
    near = whole_value(tl.where(units < 1024.0, units, 1024.0), negative, word, MODE, BITS)
    code = tl.where(negative, -near, near) + zero
    if NOTHING_BEYOND:
        wrong = wrong | (code < low) | (code > high)
    code = tl.where(code < low, low, tl.where(code > high, high, code))
    code = tl.where(wrong, 0.0, code)
    result = (code - zero) * scale if VALUES else code.to(tl.int32)
    tl.store(out + first + lane, result.to(out.dtype.element_ty), mask=mask)
    tl.store(failed, 1, mask=tl.max((wrong & mask).to(tl.int32), 0) != 0)


def _fits_fixed(request: Request) -> str | None:
    form = request.params["dtype"]
    if not isinstance(form, Fixed):
        return f"rounds to fixed point, not to {form.kind} formats"
    return None if form.bits <= 32 else f"makes words of at most 32 bits, not {form}"


def _fits_affine(request: Request) -> str | None:
    form = request.params["dtype"]
    return None if isinstance(form, Affine) else f"rounds to affine formats, not to {form.kind} formats"


@lru_cache(256)
def _parameters(form: Affine, index: int, stream: int) -> tuple[Any, Any]:
    """Scales and zero points of all channels in the memory of a GPU, as float64."""
    given = (np.atleast_1d(p).astype(np.float64) for p in (form.scale, form.zero_point))
    scale, zero = (capture.constant(np.ascontiguousarray(p), index) for p in given)
    return scale, zero


def _run(x: Any, source: Format, as_values: bool, *, dtype: Any, rounding: str, overflow: str | None, subnormals: bool,
         key: int, counter: int, random_bits: int) -> Any:  # fmt: skip
    xp, row = gpu.xp(), gpu.contiguous(x).reshape(-1)
    out = xp.empty(row.size, x.dtype if as_values else dtype.storage)
    failed = xp.zeros(1, np.int32)
    how = {"NOTHING_BEYOND": overflow == "raise", "MODE": MODE[rounding], "BITS": random_bits, "BLOCK": BLOCK}
    grid, drawn = (cdiv(row.size, BLOCK),), stream(key, counter)
    if isinstance(dtype, Fixed):
        launch(
            _fixed, grid, row, out, failed, row.size, *drawn,
            SCALE=2.0**dtype.fraction_bits, LOW=float(dtype.min_code), HIGH=float(dtype.max_code),
            MODULUS=2.0**dtype.bits if overflow == "wrap" else 0.0, STEP=dtype.scale if as_values else 0.0,
            **how,
        )  # fmt: skip
    else:
        dtype.along(dtype.scale, x.ndim, x.shape)  # raises where the channels differ
        scales, zeros = capture.kept(_parameters(dtype, *gpu.queue()))
        inner = 1 if dtype.axis is None else int(np.prod(x.shape[dtype.axis + 1 :], dtype=np.int64))
        launch(
            _affine, grid, row, out, scales, zeros, failed, row.size, scales.size, inner, *drawn,
            LOW=dtype.min_code, HIGH=dtype.max_code, VALUES=as_values, **how,
        )  # fmt: skip
    if int(failed[0]):
        spec.encoded(source.exact(gpu.to_host(x)), dtype=dtype, rounding=rounding, overflow=overflow, subnormals=subnormals,
                     key=key, counter=counter, random_bits=random_bits)  # raises  # fmt: skip
    return out.reshape(x.shape)


def _runner(request: Request, as_values: bool) -> Any:
    source = request.formats[0]
    assert source is not None

    def run(x: Any, **given: Any) -> Any:
        return _run(x, source, as_values, **given)

    return run


TAKEN = [float32, float64, *(form for form in INTEGERS if form.bits <= 32)]  # what float64 holds


@kernel(spec.quantize, "cuda/triton-fixed", rank=40, formats=TAKEN, where=_fits_fixed, build=True)
def fixed(request: Request) -> Any:
    return _runner(request, as_values=False)


@kernel(spec.fake_quantize, "cuda/triton-fixed", rank=40, formats=[float32, float64], where=_fits_fixed, build=True)
def fake_fixed(request: Request) -> Any:
    return _runner(request, as_values=True)


@kernel(spec.quantize, "cuda/triton-affine", rank=40, formats=TAKEN, where=_fits_affine, build=True)
def affine(request: Request) -> Any:
    return _runner(request, as_values=False)


@kernel(spec.fake_quantize, "cuda/triton-affine", rank=40, formats=[float32, float64], where=_fits_affine, build=True)
def fake_affine(request: Request) -> Any:
    return _runner(request, as_values=True)
