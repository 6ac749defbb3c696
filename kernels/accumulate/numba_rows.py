"""A row of accumulators in float64, where products are exact: each sum is rounded to odd, then to the format by adding and
taking off a power of two. Threads share out the rows.

Next limit: float64 holds half as many values in a vector as float32, and the odd rounding takes ten operations.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.accumulate import spec
from ulpgrad.kernels.accumulate.rule import Rule, chunk_of, refusal
from ulpgrad.kernels.matmul import layout
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.random.numba_blocks import block
from ulpgrad.kernels.reduction.spec import result_shape
from ulpgrad.kernels.registry import kernel

MANTISSA, BIAS, DOUBLE = 52, 1023, 52
SIGN, EXPONENT = np.int64(-(2**63)), np.int64(0x7FF << 52)
ROUNDER = np.int64(0x4330000000000000)  # the code of 2^52: with a number below 2^32 in its last bits, 2^52 plus that


@jit(inline="always")
def _add_to_odd(x: Any, y: Any) -> Any:
    total = x + y
    part = total - x
    lost = (x - (total - part)) + (y - part)
    code = np.float64(total).view(np.int64)
    away = (code ^ np.float64(lost).view(np.int64)) >> 63  # -1 where the sum was rounded away from zero
    return ((code + away) | 1) if abs(lost) > 0 else code


@jit(inline="always")
def _round(code: Any, word: Any, digits: int, lowest: int, highest: int, top: float, beyond: float, bits: int) -> Any:
    """The value of a float64 code in the format. `bits` of the word round stochastically; 0 rounds to nearest even."""
    sign, size = code & SIGN, code & ~SIGN
    unit = min(max(size & EXPONENT, np.int64(lowest)), np.int64(highest))  # the power of two below
    big = np.int64(unit + ((MANTISSA - digits) << MANTISSA)).view(np.float64)
    value = np.int64(size).view(np.float64)
    if bits:
        fine = np.int64(unit + ((MANTISSA - digits - bits) << MANTISSA)).view(np.float64)
        drawn = np.int64((word >> (32 - bits)) | ROUNDER).view(np.float64) - 2.0**52
        value = ((value + fine) - fine) + drawn * np.int64(unit - ((digits + bits) << MANTISSA)).view(np.float64)
    near = (value + big) - big
    if bits and near > value:
        near -= np.int64(unit - (digits << MANTISSA)).view(np.float64)
    result = beyond if near > top else near
    return np.int64(np.float64(result).view(np.int64) | sign).view(np.float64)


@jit()
def _draw(words: Array, first: int, addition: int, blocks: int, key: Any, low: Any, high: Any) -> None:
    """The words of four additions of results first, first + 1, ...: words[addition % 4, result]."""
    for j in range(words.shape[1]):
        w0, w1, w2, w3 = block(low, high, key, (first + j) * blocks + addition // 4)
        words[0, j], words[1, j], words[2, j], words[3, j] = w0, w1, w2, w3


@jit()
def _add_row(totals: Array, scale: Any, terms: Array, words: Array, digits: int, lowest: int, highest: int, top: float,
             beyond: float, bits: int) -> None:  # fmt: skip
    factor = np.float64(scale)
    if digits == DOUBLE:
        for j in range(len(totals)):
            totals[j] += factor * np.float64(terms[j])
    elif bits:
        for j in range(len(totals)):
            odd = _add_to_odd(totals[j], factor * np.float64(terms[j]))
            totals[j] = _round(odd, words[j], digits, lowest, highest, top, beyond, bits)
    else:
        for j in range(len(totals)):
            odd = _add_to_odd(totals[j], factor * np.float64(terms[j]))
            totals[j] = _round(odd, np.int64(0), digits, lowest, highest, top, beyond, 0)


@jit(parallel=True)
def multiply(a: Array, b: Array, c: Array, chunk: int, blocks: int, digits: int, lowest: int, highest: int, top: float,
             beyond: float, bits: int, key: Any, low: Any, high: Any) -> None:  # fmt: skip
    stack, m, n = c.shape
    k = a.shape[2]
    for task in prange(stack * m):
        s, i = task // m, task % m
        left, right = a[min(s, len(a) - 1), i], b[min(s, len(b) - 1)]
        part, total = np.zeros(n), np.zeros(n)
        words, word = np.zeros((4, n), np.int64), np.zeros((4, n), np.int64)
        for t in range(k):
            if bits and t % 4 == 0:
                _draw(words, task * n, t, blocks, key, low, high)
            _add_row(part, left[t], right[t], words[t % 4], digits, lowest, highest, top, beyond, bits)
            if chunk < k and ((t + 1) % chunk == 0 or t + 1 == k):
                addition = k + t // chunk
                if bits:
                    _draw(word, task * n, addition, blocks, key, low, high)
                _add_row(total, 1.0, part, word[addition % 4], digits, lowest, highest, top, beyond, bits)
                part[:] = 0
        c[s, i] = total if chunk < k else part


@jit(parallel=True)
def cumulate(x: Array, out: Array, blocks: int, digits: int, lowest: int, highest: int, top: float, beyond: float,
             bits: int, key: Any, low: Any, high: Any) -> None:  # fmt: skip
    outer, k, inner = x.shape
    for o in prange(outer):
        total, words = np.zeros(inner), np.zeros((4, inner), np.int64)
        for t in range(k):
            if bits and t % 4 == 0:
                _draw(words, o * inner, t, blocks, key, low, high)
            _add_row(total, 1.0, x[o, t], words[t % 4], digits, lowest, highest, top, beyond, bits)
            out[o, t] = total


def _numbers(rule: Rule) -> tuple[Any, ...]:
    """The rule as the kernels above take it: exponents as float64 codes."""
    digits, least, most, top, beyond = rule.format
    bits, key, low, high = rule.random
    codes = (least + BIAS) << MANTISSA, (min(most + 1, BIAS) + BIAS) << MANTISSA
    return digits, *codes, top, beyond, bits, np.uint64(key), np.uint64(low), np.uint64(high)


def _multiply(a: Array, b: Array, rule: Rule, chunk: int) -> Array:
    k = a.shape[2]
    c = np.empty((max(len(a), len(b)) if len(a) and len(b) else 0, a.shape[1], b.shape[2]), b.dtype)
    if c.size:
        multiply(a, b, c, chunk_of(chunk, k), spec.blocks(k, chunk), *_numbers(rule))
    return rule.finish(c)


@kernel(spec.accumulate_matmul, "cpu/numba-rows", rank=30, formats=[float32, float64], where=refusal, contiguous=True)
def matmul(a: Array, b: Array, *, chunk: int = 1, **how: Any) -> Array:
    left, right, shape = layout.stacks(a, b)
    return _multiply(left, right, Rule.of(**how), chunk).reshape(*shape, a.shape[-2], b.shape[-1])


@kernel(spec.accumulate_sum, "cpu/numba-rows", rank=30, formats=[float32, float64], where=refusal)
def sum(x: Array, *, axis: spec.Axes, keepdims: bool, chunk: int = 1, **how: Any) -> Array:
    kept = tuple(i for i in range(x.ndim) if i not in axis)
    terms = math.prod(x.shape[i] for i in axis)
    columns = np.transpose(x, (*axis, *kept)).reshape(1, terms, math.prod(x.shape[i] for i in kept))
    ones = np.ones((1, 1, terms), x.dtype)
    total = _multiply(ones, np.ascontiguousarray(columns), Rule.of(**how), chunk)
    return total.reshape(result_shape(x.shape, axis, keepdims))


@kernel(spec.accumulate_cumulative_sum, "cpu/numba-rows", rank=30, formats=[float32, float64], where=refusal,
        contiguous=True)  # fmt: skip
def cumulative_sum(x: Array, *, axis: int, **how: Any) -> Array:
    rule = Rule.of(**how)
    lines = x.reshape(math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :]))
    out = np.empty_like(lines)
    if out.size:
        cumulate(lines, out, spec.blocks(x.shape[axis], 1), *_numbers(rule))
    return rule.finish(out).reshape(x.shape)
