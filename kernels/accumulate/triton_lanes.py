"""Every lane keeps one sum: products are exact in float64, each addition is rounded to odd and then to the accumulator's format by
adding and taking off a power of two. No operation is fused, so the bits are the CPU's.

Next limit: some thirty float64 operations for a term, and operands that are read again for every tile of results.
"""

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
    """total + term, rounded once to the format: RULE is (digits, codes of the lowest and the highest exponent, codes of the largest
    value and of what lies beyond, random bits)."""
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
        top, beyond = (tl.full([], RULE[i], tl.int64).to(tl.float64, bitcast=True) for i in (3, 4))
        near = tl.where(near > top, beyond, near)
        x = _power(near.to(tl.int64, bitcast=True) | sign)
    return x
