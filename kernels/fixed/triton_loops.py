"""One pass for each operation: operands are read once, and the exact integer is cut to its word in registers of 32 or 64 bits,
whichever holds all that is met on the way. Numbers of bits are arguments: formats share compiled kernels, modes do not.

Next limit: memory; for quotients, division by integers, which takes dozens of instructions.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS
from ulpgrad.kernels import gpu
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.quantize.grid import MODE
from ulpgrad.kernels.quantize.triton_round import AWAY, DOWN, EVEN, ODD, UP, ZERO
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 1024
ADD, SUBTRACT, MULTIPLY, DIVIDE, KEEP, NEGATE, ABSOLUTE = (tl.constexpr(i) for i in range(7))


@triton.jit
def _drawn(part, size, word, BITS: tl.constexpr):
    """Whether stochastic rounding goes up at a fraction part / size, which is taken to BITS bits, ties to even."""
    scaled = part << BITS
    count = scaled // size
    rest = 2 * (scaled - count * size)
    count += ((rest > size) | ((rest == size) & ((count & 1) == 1))).to(part.dtype)
    return count + (word >> (32 - BITS)).to(part.dtype) >= (tl.full([], 1, part.dtype) << BITS)


@triton.jit
def _dropped(v, drop, word, MODE: tl.constexpr, BITS: tl.constexpr):
    """Without its last `drop` bits, rounded. Shifts to the right round down; each mode says what comes on top."""
    one = tl.full([], 1, v.dtype) << drop
    half = tl.full([], 1, v.dtype) << (drop - 1)
    low = v >> drop
    if MODE == EVEN:
        found = (v + (half - 1) + (low & 1)) >> drop
    elif MODE == AWAY:
        found = (v + half - (v < 0).to(v.dtype)) >> drop
    elif MODE == ZERO:
        found = tl.where(v < 0, (v + (one - 1)) >> drop, low)
    elif MODE == UP:
        found = (v + (one - 1)) >> drop
    elif MODE == DOWN:
        found = low
    elif MODE == ODD:
        found = low | ((v & (one - 1)) != 0).to(v.dtype)
    else:
        size = tl.where(v < 0, 0 - v, v)
        magnitude = (size >> drop) + _drawn(size & (one - 1), one, word, BITS).to(v.dtype)
        found = tl.where(v < 0, 0 - magnitude, magnitude)
    return found


@triton.jit
def _quotient(v, divisor, word, MODE: tl.constexpr, BITS: tl.constexpr):
    """v / divisor rounded to a whole number."""
    negative = (v < 0) != (divisor < 0)
    size = tl.where(divisor < 0, 0 - divisor, divisor)
    above = tl.where(v < 0, 0 - v, v)
    magnitude = above // size
    over = above - magnitude * size
    low = tl.where(negative, 0 - magnitude - (over != 0).to(v.dtype), magnitude)
    rest = tl.where(negative & (over != 0), size - over, over)  # above the floor
    if MODE == EVEN:
        up = (2 * rest > size) | ((2 * rest == size) & ((low & 1) == 1))
    elif MODE == AWAY:
        up = (2 * rest > size) | ((2 * rest == size) & (negative == 0))
    elif MODE == ZERO:
        up = negative & (rest != 0)
    elif MODE == UP:
        up = rest != 0
    elif MODE == DOWN:
        up = rest < 0
    elif MODE == ODD:
        up = (rest != 0) & ((low & 1) == 0)
    else:
        up = _drawn(over, size, word, BITS)
        low = magnitude
    found = low + up.to(v.dtype)
    if MODE > ODD:
        found = tl.where(negative, 0 - found, found)
    return found


@triton.jit
def _apply(
    a, b, words, out, outside, n, left, right, drop, low, high,
    KIND: tl.constexpr, DROPS: tl.constexpr, MODE: tl.constexpr, BITS: tl.constexpr, WRAP: tl.constexpr, REPORT: tl.constexpr,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0).to(tl.int64) * BLOCK
    lane = tl.arange(0, BLOCK)
    mask = lane < n - first
    word_type: tl.constexpr = tl.int64 if WIDE else tl.int32
    least, most = tl.cast(low, word_type), tl.cast(high, word_type)
    v = tl.load(a + first + lane, mask=mask, other=0).to(word_type)
    word = tl.load(words + first + lane, mask=mask, other=0) if MODE > ODD else 0
    if KIND < KEEP:
        w = tl.load(b + first + lane, mask=mask, other=1).to(word_type)
        if KIND != MULTIPLY:
            v, w = v << left, w << right
        if KIND == ADD:
            v = v + w
        elif KIND == SUBTRACT:
            v = v - w
        elif KIND == MULTIPLY:
            v = v * w
    elif KIND == NEGATE:
        v = 0 - v
    elif KIND == ABSOLUTE:
        v = tl.where(v < 0, 0 - v, v)
    if KIND == DIVIDE:
        v = _quotient(v, w, word, MODE, BITS)
    elif DROPS:
        v = _dropped(v, drop, word, MODE, BITS)
    else:
        v = v << drop
    if REPORT:
        tl.store(outside + first + lane, (v < least) | (v > most), mask=mask)
    code = ((v - least) & (most - least)) + least if WRAP else tl.minimum(tl.maximum(v, least), most)
    tl.store(out + first + lane, code.to(out.dtype.element_ty), mask=mask)


def fits(request: Request) -> str | None:
    """Why a call is not for these loops, or None."""
    cut: Cut = request.params["cut"]
    return None if cut.width in (32, 64) else "takes calls whose intermediate values fit 64 bits"


def _run(kind: Any, a: Any, b: Any, words: Any, cut: Cut, left: int = 0, right: int = 0) -> Any:
    xp = gpu.xp()
    shape = a.shape if b is None else np.broadcast_shapes(a.shape, b.shape)
    operands = [gpu.contiguous(xp.broadcast_to(x, shape)) for x in (a, a if b is None else b)]
    out = xp.empty(shape, cut.out.storage)
    outside = xp.empty(shape, np.bool_) if cut.report else out
    drawn = cut.rounding == "stochastic" and (kind is DIVIDE or cut.drop > 0)
    launch(
        _apply, (cdiv(out.size, BLOCK),), *operands, gpu.contiguous(words) if drawn else operands[0], out, outside, out.size,
        left, right, abs(cut.drop), cut.low, cut.high, KIND=kind.value, DROPS=cut.drop > 0,
        MODE=MODE[cut.rounding] if drawn or cut.rounding != "stochastic" else EVEN.value, BITS=cut.random_bits,
        WRAP=cut.wrap, REPORT=cut.report, WIDE=cut.width == 64, BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return (out, outside) if cut.report else out


@kernel(spec.add, "cuda/triton-loops", rank=40, formats=INTEGERS, where=fits)
def add(a: Any, b: Any, words: Any, *, left: int, right: int, subtract: bool, cut: Cut) -> Any:
    return _run(SUBTRACT if subtract else ADD, a, b, words, cut, left, right)


@kernel(spec.multiply, "cuda/triton-loops", rank=40, formats=INTEGERS, where=fits)
def multiply(a: Any, b: Any, words: Any, *, cut: Cut) -> Any:
    return _run(MULTIPLY, a, b, words, cut)


@kernel(spec.divide, "cuda/triton-loops", rank=40, formats=INTEGERS, where=fits)
def divide(a: Any, b: Any, words: Any, *, left: int, right: int, cut: Cut) -> Any:
    return _run(DIVIDE, a, b, words, cut, left, right)


@kernel(spec.rescale, "cuda/triton-loops", rank=40, formats=INTEGERS, where=fits)
def rescale(x: Any, words: Any, *, sign: str, cut: Cut) -> Any:
    kind = {"keep": KEEP, "negate": NEGATE, "absolute": ABSOLUTE}[sign]
    return _run(kind, x, None, words, cut)
