"""Any format to any other in one pass: codes are looked up in a table or built from their bits, rounded by integers, written
once. One kernel, compiled for each pair of formats. Limited by memory for the usual floats, by integer arithmetic for others.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import ALL, Array, Float, Format, Integer, bool_
from ulpgrad.kernels import gpu
from ulpgrad.kernels.cast import spec
from ulpgrad.kernels.cast.convert import numpy_converter, of_request
from ulpgrad.kernels.quantize import triton_round
from ulpgrad.kernels.quantize.triton_round import EVEN, SHIFTED, as_float, float_code, upper_code, value_of
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 1024
# What results are: a type that hardware rounds to, the upper part of a float32, codes of a grid, whole numbers, whether not zero
NATIVE, UPPER, CODES, WHOLE, BOOL = (tl.constexpr(i) for i in range(5))


@triton.jit
def _cast(
    x, out, table, failed, n,
    KIND: tl.constexpr, DECODE: tl.constexpr, TARGET: tl.constexpr, GRID: tl.constexpr, DOUBLE: tl.constexpr,
    WIDE_WORDS: tl.constexpr, CHECKED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    mask = lane < n - first
    value = value_of(tl.load(x + first + lane, mask=mask, other=0), table, mask, KIND, DECODE)
    kind: tl.constexpr = out.dtype.element_ty
    if TARGET == NATIVE:
        if kind == tl.float16 and value.dtype.is_int():
            value = value.to(tl.float32)
        result = value.to(kind)
    elif TARGET == UPPER:
        result = upper_code(as_float(value, False), GRID[0])
    elif TARGET == CODES:
        result, wrong, _ = float_code(as_float(value, DOUBLE), 0, GRID, EVEN, 1, WIDE_WORDS)
    elif TARGET == WHOLE:
        low, high = tl.full([], GRID[0], value.dtype), tl.full([], GRID[1], value.dtype)
        wrong = ((value >= low) & (value < high)) == 0
        result = tl.where(wrong, 0.0, value).to(kind)
    else:
        result = value != 0
    tl.store(out + first + lane, result.to(kind), mask=mask)
    if CHECKED:
        tl.store(failed, 1, mask=tl.max((wrong & mask).to(tl.int32), 0) != 0)


def _whole_limits(source: Any, target: Integer) -> tuple[float, float]:
    """The smallest float of a type whose whole part an integer holds, and the smallest power of two that it does not."""
    below = source.type(target.min - 1)
    low = np.nextafter(below, source.type(0)) if int(below) == target.min - 1 else source.type(target.min)
    return float(low), float(target.max + 1)


@cache
def _target(source: Format, target: Format) -> tuple[Any, ...]:
    """TARGET, GRID, DOUBLE, WIDE_WORDS and CHECKED of `_cast`."""
    carried = triton_round.carries(source)
    if target is bool_:
        return BOOL.value, (), False, False, False
    if isinstance(target, Integer):
        if isinstance(source, Float):
            return WHOLE.value, _whole_limits(carried, target), False, False, True
        return NATIVE.value, (), False, False, False
    assert isinstance(target, Float)
    if target.is_native:
        return NATIVE.value, (), False, False, False
    computed = triton_round.computes(carried)
    if triton_round.reading(target)[0] == SHIFTED.value and computed == np.float32:
        return UPPER.value, (23 - target.mantissa_bits,), False, False, False
    kinds = triton_round.registers(target, "nearest_even", computed)
    return CODES.value, triton_round.constants(target), *kinds, target.nan_code is None and isinstance(source, Float)


def convert(x: Any, source: Format, target: Format) -> Any:
    """Stored values of one format as stored values of another, as `kernels.cast.convert` has them, on the GPU.

    Where the target has no room for every value, NaN of a format without it say, one flag is waited for, and the error of the
    CPU raised.
    """
    if source is target:
        return gpu.copied(x)
    xp = gpu.xp()
    row, shaped = gpu.flat(x)
    out = xp.empty(row.size, target.storage)
    mode, grid, double, wide, checked = _target(source, target)
    kind, decode = triton_round.reading(source)
    failed = xp.zeros(1, np.int32) if checked else row
    launch(
        _cast, (cdiv(row.size, BLOCK),), row, out, triton_round.values_on_device(source), failed, row.size,
        KIND=kind, DECODE=decode, TARGET=mode, GRID=grid, DOUBLE=double, WIDE_WORDS=wide, CHECKED=checked, BLOCK=BLOCK,
        num_warps=4,
    )  # fmt: skip
    if checked and int(failed[0]):
        numpy_converter(source, target)(gpu.to_host(x))  # raises
    return shaped(out)


def _fits(request: Request) -> str | None:
    _, target = of_request(request.formats, request.params)
    if isinstance(target, Float) and not target.is_native:
        return triton_round.refusal(target)
    return None


@kernel(spec.cast, "cuda/triton-bits", rank=40, formats=ALL, where=_fits, build=True)
def build(request: Request) -> Callable[..., Array]:
    source, target = of_request(request.formats, request.params)

    def run(x: Any, *, dtype: Format) -> Any:
        return convert(x, source, target)

    return run


__all__ = ["convert"]
