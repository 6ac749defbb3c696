"""Exact products of codes on tensor cores, which multiply bytes: a 16-bit code is a high and a low byte, and two or four byte
products make one of codes. A byte that has no sign is moved by 128, which row and column sums take back. Sums of bytes fit
32 bits for 2^15 steps of k; then they are added up in 64 where exact sums are wanted.

Next limit: bytes are split anew for every tile, in registers, instead of once.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.kernels import gpu
from ulpgrad.kernels.fixed.triton_cut import limited, rounded
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import INT32, INT64, Accumulator, as_accumulator
from ulpgrad.kernels.integer.triton_steps import by
from ulpgrad.kernels.matmul import triton_configs as configs, triton_operands as operands
from ulpgrad.kernels.matmul.triton_grouped import tile_of
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

CHUNK = tl.constexpr(1 << 15)  # steps of k for which 2 x 128 x 128 a step stays below 2^31


@triton.jit
def low_byte(x):
    """The only byte of an int8, or the low one moved by -128 of other codes."""
    if x.dtype == tl.int8:
        result = x
    else:
        result = ((x & 0xFF) ^ 0x80).to(tl.int8, bitcast=x.dtype == tl.uint8)
    return result


@triton.jit
def chunk_sums(
    a, b, rows, columns, m, n, first, last, stride_am, stride_ak, stride_bk, stride_bn, INDEX: tl.constexpr, SUM: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A tile of a[:, first:last] @ b[first:last, :] in SUM: int64, or int32, which wraps."""
    a_words: tl.constexpr = a.dtype.element_ty == tl.int16
    b_words: tl.constexpr = b.dtype.element_ty == tl.int16
    a_moved: tl.constexpr = a.dtype.element_ty != tl.int8
    b_moved: tl.constexpr = b.dtype.element_ty != tl.int8
    low = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    if a_words or b_words:
        middle = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    if a_words and b_words:
        high = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    if b_moved:
        of_rows = tl.zeros((BLOCK_M,), tl.int32)
    if a_moved:
        of_columns = tl.zeros((BLOCK_N,), tl.int32)
    for start in range(first, last, BLOCK_K):
        steps = (start + tl.arange(0, BLOCK_K)).to(INDEX)
        x = tl.load(a + rows * stride_am + steps[None, :] * stride_ak, (rows < m) & (steps[None, :] < last), 0)
        y = tl.load(b + steps[:, None] * stride_bk + columns * stride_bn, (steps[:, None] < last) & (columns < n), 0)
        low = tl.dot(low_byte(x), low_byte(y), low, out_dtype=tl.int32)
        if a_words:
            middle = tl.dot((x >> 8).to(tl.int8), low_byte(y), middle, out_dtype=tl.int32)
        if b_words:
            middle = tl.dot(low_byte(x), (y >> 8).to(tl.int8), middle, out_dtype=tl.int32)
        if a_words and b_words:
            high = tl.dot((x >> 8).to(tl.int8), (y >> 8).to(tl.int8), high, out_dtype=tl.int32)
        if b_moved:
            of_rows += tl.sum(x.to(tl.int32), axis=1)
        if a_moved:
            of_columns += tl.sum(y.to(tl.int32), axis=0)
    total = low.to(SUM)
    if a_words or b_words:
        total += middle.to(SUM) << 8
    if a_words and b_words:
        total += high.to(SUM) << 16
    # With x = x' + 128 and y = y' + 128 where they are moved: xy = x'y' + 128 x + 128 y - 128^2, each where it applies.
    if b_moved:
        total += of_rows.to(SUM)[:, None] << 7
    if a_moved:
        total += of_columns.to(SUM)[None, :] << 7
    if a_moved and b_moved:
        total -= (tl.cdiv(last - first, BLOCK_K) * BLOCK_K).to(SUM) << 14
    return total


@triton.jit
def byte_tile(
    a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn,
    INDEX: tl.constexpr, SUM: tl.constexpr, CHUNKED: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """This program's tile of products of int8, uint8 and int16 codes: its rows, its columns, which matrix of the stack it is of,
    and its sums, in SUM. CHUNKED: k is longer than one sum of bytes may be, which some of the units saturate instead of
    wrapping."""
    rows, columns, from_a, from_b, matrix = tile_of(
        m, n, inner, stride_a0, stride_a1, stride_b0, stride_b1, INDEX, GROUP, BLOCK_M, BLOCK_N
    )  # fmt: skip
    a += from_a
    b += from_b
    k += tl.full((), 0, tl.int32)  # a number also where it is known to be 1
    if CHUNKED:
        total = tl.zeros((BLOCK_M, BLOCK_N), SUM)
        for first in range(0, k, CHUNK):
            total += chunk_sums(
                a, b, rows, columns, m, n, first, tl.minimum(first + CHUNK, k), stride_am, stride_ak, stride_bk, stride_bn,
                INDEX, SUM, BLOCK_M, BLOCK_N, BLOCK_K,
            )  # fmt: skip
    else:
        total = chunk_sums(
            a, b, rows, columns, m, n, 0, k, stride_am, stride_ak, stride_bk, stride_bn, INDEX, SUM, BLOCK_M, BLOCK_N, BLOCK_K
        )  # fmt: skip
    return rows, columns, matrix, total


@triton.jit
def multiply(
    out, outside, a, b, low, high, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak,
    stride_b0, stride_b1, stride_bk, stride_bn,
    SHIFT: tl.constexpr, ROUNDING: tl.constexpr, WRAP: tl.constexpr, INDEX: tl.constexpr, SUM: tl.constexpr,
    CHUNKED: tl.constexpr, GROUP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, columns, matrix, sums = byte_tile(
        a, b, m, n, k, inner, stride_a0, stride_a1, stride_am, stride_ak, stride_b0, stride_b1, stride_bk, stride_bn, INDEX, SUM,
        CHUNKED, GROUP, BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip
    at, inside = matrix * m * n + rows.to(tl.int64) * n + columns, (rows < m) & (columns < n)
    if ROUNDING is not None:
        value = rounded(sums.to(tl.int64), SHIFT, ROUNDING)
        if outside is not None:
            tl.store(outside + at, (value < low) | (value > high), inside)
        sums = limited(value, low, high, WRAP)
    tl.store(out + at, sums.to(out.dtype.element_ty), inside)


def largest(product: operands.Product) -> int:
    """No sum of the product is larger than this."""
    ends = (max(-int(np.iinfo(x.dtype).min), int(np.iinfo(x.dtype).max)) for x in (product.a, product.b))
    return product.k * math.prod(ends)


def launch_tiles(
    kernel: Any,
    product: operands.Product,
    exact: bool,
    before: Any,
    after: Any = (),
    *,
    finished: bool = True,
    **constants: Any,
) -> None:
    """Launch a kernel over tiles: `before`, m, n, k, steps and strides, `after`; and the sizes of its tiles. finished: more is
    done with a sum than to store it."""
    words = any(x.dtype == np.int16 for x in (product.a, product.b))
    chunked = product.k > CHUNK.value
    kind = "exact" if exact or chunked else "words" if words else "bytes"
    config = configs.choose(product.question("triton-bytes", kind)._replace(finished=finished))
    tiles = product.count * cdiv(product.m, config.m) * cdiv(product.n, config.n)
    launch(
        kernel, (tiles,), *before, *product.places(), *after, INDEX=product.index, SUM=tl.int64 if exact else tl.int32,
        CHUNKED=chunked, GROUP=config.group, **config.blocks, **constants,
    )  # fmt: skip


def run(product: operands.Product, chosen: Accumulator) -> Any:
    """The product in an accumulator that sees one sum for each result."""
    out, plain = product.result(), chosen in (INT32, INT64)
    outside = gpu.xp().empty(out.shape, np.bool_) if chosen.overflow == "raise" else None
    exact = chosen != INT32 and largest(product) >= 2**31
    launch_tiles(
        multiply, product, exact, (out, outside, product.a, product.b, chosen.low, chosen.high),
        finished=not plain, SHIFT=chosen.shift, ROUNDING=None if plain else chosen.rounding, WRAP=chosen.overflow == "wrap",
    )  # fmt: skip
    if outside is not None and outside.any():
        at = gpu.xp().argwhere(outside)[0]
        raise spec.overflowed("integer_matmul", chosen, tuple(int(i) for i in at), 0)
    return out


def _refusal(request: Request) -> str | None:
    a, b = request.arrays
    chosen, k = as_accumulator(request.params.get("accumulator")), a.shape[-1]
    if chosen in (INT32, INT64):
        return None
    if chosen.chunk < k:
        return f"adds up whole sums, not chunks of {chosen.chunk} among {k}"
    return None if spec.fits_int64(chosen, k, a.dtype, b.dtype) else f"64 bits do not hold every step of {chosen}"


@kernel(spec.integer_matmul, "cuda/triton-bytes", rank=60, formats=spec.FORMATS, where=_refusal, build=True)
def integer_matmul(request: Request) -> Any:
    return by(run, request)
