"""Blocks that share a power of two: a program takes the values of some blocks once, finds each block's largest magnitude, and
rounds with the element's exponent range moved by the scale, so that nothing is multiplied. Blocks lie on any axis where they are.
Next limit: 64-bit integers, since the range of a moved element is not that of float32.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.formats import Block, Float, Format, float32, float64, int8, uint8
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.quantize import spec, triton_round
from ulpgrad.kernels.quantize.grid import MODE, block_refusal, carry_from, table
from ulpgrad.kernels.quantize.triton_round import STOCHASTIC, whole
from ulpgrad.kernels.quantize.triton_whole import whole_value
from ulpgrad.kernels.random.triton_philox import stream, word_at
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton, typed

TILE = 1024  # values of a program


@triton.jit
def _places(total, length, count, inner, SIZE: tl.constexpr, BLOCKS: tl.constexpr, PADDED: tl.constexpr):
    """(which block, where its values lie, which of them there are): an array is [outer, length, inner], scales [outer, count,
    inner]."""
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    j = tl.arange(0, PADDED)
    start = block // inner % count * SIZE
    first = (block // (count * inner) * length + start) * inner + block % inner
    inside = (block < total)[:, None] & (j < SIZE)[None, :] & (start[:, None] + j[None, :] < length)
    return block, first[:, None] + j[None, :] * inner, inside


@triton.jit
def _quantize(
    x, codes, scales, total, length, count, inner, k0, k1, c0, c1, c2, c3,
    LARGEST: tl.constexpr, CARRY_FROM: tl.constexpr, GRID: tl.constexpr, STEP: tl.constexpr, MODE: tl.constexpr,
    BITS: tl.constexpr, SIZE: tl.constexpr, BLOCKS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    block, at, inside = _places(total, length, count, inner, SIZE, BLOCKS, PADDED)
    value = tl.load(x + at, mask=inside, other=0).to(tl.float64)
    bits = value.to(tl.int64, bitcast=True)
    negative = bits < 0
    magnitude = bits & 0x7FFFFFFFFFFFFFFF
    most = tl.max(magnitude, 1)
    carried = ((most & 0xFFFFFFFFFFFFF) >= CARRY_FROM).to(tl.int64)
    exponent = (most >> 52) - 1023 + carried - LARGEST  # far below -127 for what is subnormal in float64
    exponent = tl.minimum(tl.maximum(exponent, -127), 127)
    exponent = tl.where(most == 0, -127, exponent)
    lost = most >= 0x7FF0000000000000
    word = word_at(at, k0, k1, c0, c1, c2, c3) if MODE == STOCHASTIC else 0
    if STEP > 0:  # fixed point of GRID bits
        top = tl.full([], (1 << (GRID[0] - 1)) * 1.0, tl.float64)
        factor = ((1023 - exponent) << 52).to(tl.float64, bitcast=True) / STEP
        units = tl.abs(value) * factor[:, None]
        near = whole_value(tl.where(units < top, units, top), negative, word, MODE, BITS)
        code = tl.where(negative, -near, tl.minimum(near, top - 1)).to(tl.int64)
    else:
        M: tl.constexpr = GRID[0]
        lowest = (GRID[1] + 1023 + exponent)[:, None]
        field = tl.maximum(magnitude >> 52, 1)
        significand = (magnitude - ((field - 1) << 52)) << 8
        shift = 60 - M + tl.maximum(lowest - field, 0)
        code = (tl.maximum(field - lowest, 0) << M) + whole(significand, shift, negative, 0, word, MODE, BITS, 62)
        code = tl.where(code < GRID[3], 0, tl.minimum(code, GRID[2]))
        code = tl.where(negative, code | GRID[4], code)
    code = tl.where(lost[:, None], 0, code)
    tl.store(codes + at, code.to(codes.dtype.element_ty), mask=inside)
    tl.store(scales + block, tl.where(lost, 255, exponent + 127).to(tl.uint8), mask=block < total)


@triton.jit
def _values(
    codes, scales, table, out, total, length, count, inner,
    SIZE: tl.constexpr, BLOCKS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    block, at, inside = _places(total, length, count, inner, SIZE, BLOCKS, PADDED)
    code = tl.load(codes + at, mask=inside, other=0).to(tl.int32)
    scale = tl.load(scales + block, mask=block < total, other=0).to(tl.int32)
    power = tl.where(scale == 0, 0x00400000, tl.where(scale == 255, 0x7FC00000, scale << 23)).to(
        tl.float32, bitcast=True
    )
    value = tl.load(table + code, mask=inside, other=0) * power[:, None]
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


def _tile(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, tuple[int, ...], dict[str, int]]:
    """Programs, (blocks, length, blocks on the axis, inner size) and constants of a launch."""
    length, inner = shape[axis], math.prod(shape[axis % len(shape) + 1 :])
    count = cdiv(length, size)
    total = math.prod(shape[: axis % len(shape)]) * count * inner
    padded = 1 << (size - 1).bit_length()
    blocks = max(TILE // padded, 1)
    return cdiv(total, blocks), (total, length, count, inner), {"SIZE": size, "BLOCKS": blocks, "PADDED": padded}


def _scales(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    counted = list(shape)
    counted[axis] = cdiv(shape[axis], size)
    return tuple(counted)


@kernel(
    spec.block_quantize, "cuda/triton-blocks", rank=40, formats=[float32, float64], where=block_refusal, contiguous=True
)
def block_quantize(x: Any, *, dtype: Block, axis: int, rounding: str, overflow: str | None, subnormals: bool, key: int,
                   counter: int, random_bits: int) -> tuple[Any, Any]:  # fmt: skip
    xp, element = gpu.xp(), dtype.element
    codes, scales = xp.empty(x.shape, element.storage), xp.empty(_scales(x.shape, axis, dtype.size), np.uint8)
    programs, sizes, tile = _tile(x.shape, axis, dtype.size)
    is_float = isinstance(element, Float)
    grid = triton_round.constants(element, "nearest_even", "saturate", subnormals) if is_float else (element.bits,)
    launch(
        _quantize, (programs,), x, codes, scales, *sizes, *stream(key, counter),
        LARGEST=dtype.max_exponent, CARRY_FROM=carry_from(dtype), GRID=grid, STEP=0.0 if is_float else element.eps,
        MODE=MODE[rounding], BITS=random_bits, num_warps=4, **tile,
    )  # fmt: skip
    return codes, scales


@lru_cache(64)
def _table(element: Any, index: int, stream: int) -> Any:
    return capture.constant(table(element), index)


@kernel(
    spec.block_dequantize,
    "cuda/triton-blocks",
    rank=40,
    formats=[uint8, int8],
    contiguous=True,
    idea="A table of the elements, and a scale that is shifted into place.",
)
def block_dequantize(codes: Any, scales: Any, *, dtype: Block, axis: int) -> Any:
    return unpacked(codes, scales, dtype, axis, float32)


def unpacked(codes: Any, scales: Any, form: Block, axis: int, to: Format) -> Any:
    """The values of blocks in a float, rounded once: float32 or bfloat16."""
    xp = gpu.xp()
    codes, scales = gpu.contiguous(codes), gpu.contiguous(scales)
    out = xp.empty(codes.shape, to.storage)
    programs, sizes, tile = _tile(codes.shape, axis, form.size)
    values = capture.kept(_table(form.element, *gpu.queue()))
    launch(_values, (programs,), codes.view(np.uint8), scales, values, typed(out, to), *sizes, num_warps=4, **tile)
    return out
