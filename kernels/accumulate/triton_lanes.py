"""Every lane keeps one sum: products are exact in float64, each addition is rounded to odd and then to the accumulator's format
by adding and taking off a power of two. No operation is fused, so the bits are the CPU's.

Next limit: some thirty float64 operations for a term, and operands that are read again for every tile of results.
"""

# ruff: noqa: SIM102 (a branch on a constant, and one on a value)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.accumulate import spec
from ulpgrad.kernels.accumulate.rule import Rule, chunk_of, refusal
from ulpgrad.kernels.random.triton_philox import stream, word_at
from ulpgrad.kernels.reduction.spec import result_shape
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

ROWS, COLUMNS = 8, 32
BIAS, MANTISSA = 1023, 52
SIGN, EXPONENT = tl.constexpr(-(2**63)), tl.constexpr(0x7FF << 52)


@triton.jit
def _power(exponent):
    """2^exponent, from a biased exponent in the place where float64 has it."""
    return exponent.to(tl.float64, bitcast=True)


@triton.jit
def _add(total, term, word, RULE: tl.constexpr):
    """total + term, rounded once to the format: RULE is (digits, codes of the lowest and the highest exponent, codes of the
    largest value and of what lies beyond, random bits)."""
    x = total + term
    if RULE[0] < 52:
        part = x - total
        lost = (total - (x - part)) + (term - part)
        code = x.to(tl.int64, bitcast=True)
        away = (code ^ lost.to(tl.int64, bitcast=True)) >> 63  # -1 where the sum was rounded away from zero
        code = tl.where(tl.abs(lost) > 0, (code + away) | 1, code)
        sign = code & SIGN
        value = _power(code ^ sign)
        unit = tl.minimum(tl.maximum(code & EXPONENT, RULE[1]), RULE[2])  # the power of two below
        big = _power(unit + ((52 - RULE[0]) << 52))
        if RULE[5] > 0:
            fine = _power(unit + ((52 - RULE[0] - RULE[5]) << 52))
            drawn = (word >> (32 - RULE[5])).to(tl.float64)
            value = ((value + fine) - fine) + drawn * _power(unit - ((RULE[0] + RULE[5]) << 52))
        near = (value + big) - big
        if RULE[5] > 0:
            near = tl.where(near > value, near - _power(unit - (RULE[0] << 52)), near)
        top, beyond = _power(tl.full([], RULE[3], tl.int64)), _power(tl.full([], RULE[4], tl.int64))
        near = tl.where(near > top, beyond, near)
        x = _power(near.to(tl.int64, bitcast=True) | sign)
    return x


@triton.jit
def _multiply(
    a, b, c, matrices_a, matrices_b, m, n, k, tiles_across, tiles, chunk, words_per_sum, k0, k1, c0, c1, c2, c3,
    RULE: tl.constexpr, CHUNKED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    matrix, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    row = (tile // tiles_across).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = (tile % tiles_across).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    left = a + (tl.minimum(matrix, matrices_a - 1) * m + row) * k
    right = b + tl.minimum(matrix, matrices_b - 1) * k * n + column
    result = (matrix * m + row[:, None]) * n + column[None, :]
    part = tl.zeros((ROWS, COLUMNS), tl.float64)
    total = tl.zeros((ROWS, COLUMNS), tl.float64)
    t = tl.full([], 0, tl.int64)
    while t < k:
        x = tl.load(left + t, mask=row < m, other=0).to(tl.float64)
        y = tl.load(right + t * n, mask=column < n, other=0).to(tl.float64)
        word = word_at(result * words_per_sum + t, k0, k1, c0, c1, c2, c3) if RULE[5] > 0 else 0
        part = _add(part, x[:, None] * y[None, :], word, RULE)
        if CHUNKED:
            if ((t + 1) % chunk == 0) | (t + 1 == k):
                addition = k + t // chunk
                word = word_at(result * words_per_sum + addition, k0, k1, c0, c1, c2, c3) if RULE[5] > 0 else 0
                total = _add(total, part, word, RULE)
                part = tl.zeros((ROWS, COLUMNS), tl.float64)
        t += 1
    sums = total if CHUNKED else part
    tl.store(c + result, sums.to(c.dtype.element_ty), mask=(row < m)[:, None] & (column < n)[None, :])


@triton.jit
def _cumulate(
    x, out, lines, k, inner, words_per_sum, k0, k1, c0, c1, c2, c3, RULE: tl.constexpr, LINES: tl.constexpr
):  # fmt: skip
    line = tl.program_id(0).to(tl.int64) * LINES + tl.arange(0, LINES)
    first = line // inner * k * inner + line % inner
    total = tl.zeros((LINES,), tl.float64)
    t = tl.full([], 0, tl.int64)
    while t < k:
        term = tl.load(x + first + t * inner, mask=line < lines, other=0).to(tl.float64)
        word = word_at(line * words_per_sum + t, k0, k1, c0, c1, c2, c3) if RULE[5] > 0 else 0
        total = _add(total, term, word, RULE)
        tl.store(out + first + t * inner, total.to(out.dtype.element_ty), mask=line < lines)
        t += 1


def _numbers(rule: Rule) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """RULE of the kernels, and the random stream as they take it. Values go as codes of float64."""
    digits, least, most, top, beyond = rule.format
    bits, key, low, high = rule.random
    codes = (int(np.float64(v).view(np.int64)) for v in (top, beyond))
    exponents = (least + BIAS) << MANTISSA, (min(most + 1, BIAS) + BIAS) << MANTISSA
    return (digits, *exponents, *codes, bits), stream(key, low | high << 64)


def _stack(x: Any, lead: tuple[int, ...]) -> Any:
    """Matrices side by side: one that serves all, or as many as the result has."""
    if math.prod(x.shape[:-2]) != 1 and x.shape[:-2] != lead:
        x = gpu.xp().broadcast_to(x, (*lead, *x.shape[-2:]))
    return gpu.contiguous(x).reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


@kernel(spec.accumulate_matmul, "cuda/triton-lanes", rank=40, formats=[float32, float64], where=refusal)
def matmul(a: Any, b: Any, *, chunk: int = 1, **how: Any) -> Any:
    rule, lead = Rule.of(**how), np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    c = gpu.xp().empty((*lead, m, n), a.dtype)
    left, right = _stack(a, lead), _stack(b, lead)
    constants, drawn = _numbers(rule)
    across = cdiv(n, COLUMNS)
    tiles = across * cdiv(m, ROWS)
    launch(
        _multiply, (tiles * math.prod(lead),), left, right, c, len(left), len(right), m, n, k, across, tiles,
        chunk_of(chunk, k), 4 * spec.blocks(k, chunk), *drawn, RULE=constants, CHUNKED=1 < chunk < k, ROWS=ROWS,
        COLUMNS=COLUMNS, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return rule.finish(c)


@kernel(spec.accumulate_sum, "cuda/triton-lanes", rank=40, formats=[float32, float64], where=refusal)
def sum(x: Any, *, axis: spec.Axes, keepdims: bool, chunk: int = 1, **how: Any) -> Any:
    kept = tuple(i for i in range(x.ndim) if i not in axis)
    terms = math.prod(x.shape[i] for i in axis)
    columns = gpu.contiguous(x.transpose((*axis, *kept))).reshape(terms, math.prod(x.shape[i] for i in kept))
    ones = gpu.xp().ones((1, terms), x.dtype)
    return matmul(ones, columns, chunk=chunk, **how).reshape(result_shape(x.shape, axis, keepdims))


@kernel(
    spec.accumulate_cumulative_sum,
    "cuda/triton-lanes",
    rank=40,
    formats=[float32, float64],
    where=refusal,
    contiguous=True,
)
def cumulative_sum(x: Any, *, axis: int, **how: Any) -> Any:
    rule, out = Rule.of(**how), gpu.xp().empty(x.shape, x.dtype)
    terms, inner = x.shape[axis], math.prod(x.shape[axis + 1 :])
    lines = math.prod(x.shape[:axis]) * inner
    constants, drawn = _numbers(rule)
    launch(
        _cumulate, (cdiv(lines, ROWS * COLUMNS),), x, out, lines, terms, inner, 4 * spec.blocks(terms, 1), *drawn,
        RULE=constants, LINES=ROWS * COLUMNS, num_warps=4, enable_fp_fusion=False,
    )  # fmt: skip
    return rule.finish(out)
