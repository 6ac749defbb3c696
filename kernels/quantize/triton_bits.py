"""Rounding to any float on the bits, in any mode: values are read once and codes, or the values that those stand for, written
once. Random words of a stochastic rounding are made where they are used. Limited by integer arithmetic, some 40 instructions a
value to nearest even, twice that with random words.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Float, Format, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.quantize import spec, triton_round
from ulpgrad.kernels.quantize.grid import MODE
from ulpgrad.kernels.quantize.triton_round import PLAIN, STOCHASTIC, as_float, float_code, value_of
from ulpgrad.kernels.random.triton_philox import stream, words
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 1024


@triton.jit
def _value_of_code(code, table, mask, KIND: tl.constexpr, DECODE: tl.constexpr, MANTISSA: tl.constexpr):
    """What codes are worth that were just made."""
    if KIND != PLAIN:
        value = value_of(code, table, mask, KIND, DECODE)
    elif MANTISSA == 10:
        value = code.to(tl.uint16).to(tl.float16, bitcast=True).to(tl.float32)
    else:
        value = code.to(tl.uint32).to(tl.float32, bitcast=True)
    return value


@triton.jit
def _quantize(
    x, out, table, failed, n, k0, k1, c0, c1, c2, c3,
    GRID: tl.constexpr, MODE: tl.constexpr, BITS: tl.constexpr, DOUBLE: tl.constexpr, WIDE_WORDS: tl.constexpr,
    KIND: tl.constexpr, DECODE: tl.constexpr, VALUES: tl.constexpr, NO_NAN: tl.constexpr, NOTHING_BEYOND: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    mask = lane < n - first
    value = as_float(tl.load(x + first + lane, mask=mask, other=0), DOUBLE)
    word = words(first, k0, k1, c0, c1, c2, c3, BLOCK) if MODE == STOCHASTIC else 0
    code, nan, beyond = float_code(value, word, GRID, MODE, BITS, WIDE_WORDS)
    result = _value_of_code(code, table, mask, KIND, DECODE, GRID[0]) if VALUES else code
    tl.store(out + first + lane, result.to(out.dtype.element_ty), mask=mask)
    if NO_NAN or NOTHING_BEYOND:
        wrong = mask & ((nan & NO_NAN) | (beyond & NOTHING_BEYOND))
        tl.store(failed, 1, mask=tl.max(wrong.to(tl.int32), 0) != 0)


def _fits(request: Request) -> str | None:
    return triton_round.refusal(request.params["dtype"])


def _runner(source: Format, form: Float, as_values: bool) -> Any:
    kind, decode = triton_round.reading(form)
    computed = triton_round.computes(triton_round.carries(source))

    def run(x: Any, *, dtype: Format, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
            random_bits: int) -> Any:  # fmt: skip
        xp = gpu.xp()
        row, shaped = (gpu.contiguous(x).reshape(-1), None) if rounding == "stochastic" else gpu.flat(x)
        out = xp.empty(row.size, x.dtype if as_values else f"u{form.itemsize}")
        double, wide = triton_round.registers(form, rounding, computed)
        checked = form.nan_code is None or overflow == "raise"
        failed = xp.zeros(1, np.int32) if checked else row
        launch(
            _quantize, (cdiv(row.size, BLOCK),), row, out, triton_round.values_on_device(form), failed, row.size,
            *stream(key, counter),
            GRID=triton_round.constants(form, rounding, overflow, subnormals), MODE=MODE[rounding], BITS=random_bits,
            DOUBLE=double, WIDE_WORDS=wide, KIND=kind, DECODE=decode, VALUES=as_values, NO_NAN=form.nan_code is None,
            NOTHING_BEYOND=overflow == "raise", BLOCK=BLOCK, num_warps=4,
        )  # fmt: skip
        if checked and int(failed[0]):
            spec.encoded(source.exact(gpu.to_host(x)), dtype=form, rounding=rounding, overflow=overflow,
                         subnormals=subnormals, key=key, counter=counter, random_bits=random_bits)  # raises  # fmt: skip
        out = out if as_values else out.view(form.storage)
        return out.reshape(x.shape) if shaped is None else shaped(out)

    return run


@kernel(spec.quantize, "cuda/triton-bits", rank=40, formats=[float32, float64, *INTEGERS], where=_fits, build=True)
def build(request: Request) -> Any:
    source = request.formats[0]
    assert source is not None
    return _runner(source, request.params["dtype"], as_values=False)


@kernel(spec.fake_quantize, "cuda/triton-bits", rank=40, formats=[float32, float64], where=_fits, build=True)
def build_fake(request: Request) -> Any:
    source = request.formats[0]
    assert source is not None
    return _runner(source, request.params["dtype"], as_values=True)
