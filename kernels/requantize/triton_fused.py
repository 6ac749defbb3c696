"""One pass: each accumulator is loaded once, scaled and rounded in registers and stored as a code; factors and shifts of its
channel come from the cache.

Next limit: four bytes are read for each code that is written; only the product's own kernel saves that (triton_linear.py).
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import math
from typing import Any

from ulpgrad.formats import Array, Format, int32, int64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 1024


@triton.jit
def codes(total, channel, inside, multiplier, shift, bias, zero_point, least, most, EVEN: tl.constexpr):
    """Accumulators as whole numbers that a code holds; operands that are None are left out. `least` and `most` bound them before
    the zero point is added."""
    if bias is not None:
        total += tl.load(bias + channel, inside, 0)  # wraps, as the accumulator does
    total = total.to(tl.int64)
    if multiplier is not None:
        total *= tl.load(multiplier + channel, inside, 0).to(tl.int64)
    amount = tl.load(shift + channel, inside, 0).to(tl.int64)
    before = tl.maximum(amount - 1, 0)
    whole = total >> amount
    last = (total >> before) & (amount > 0).to(tl.int64)
    if EVEN:
        more = total & ((tl.full((1,), 1, tl.int64) << before) - 1)  # below the last bit
        last &= (more != 0).to(tl.int64) | whole
    whole += last & 1
    return tl.minimum(tl.maximum(whole, least), most) + zero_point


@triton.jit
def run(
    out,
    x,
    multiplier,
    shift,
    bias,
    count,
    channels,
    inner,
    zero_point,
    least,
    most,
    EVEN: tl.constexpr,
    BLOCK: tl.constexpr,
):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    value = codes(
        tl.load(x + i, inside, 0), (i // inner) % channels, inside, multiplier, shift, bias, zero_point, least, most, EVEN
    )  # fmt: skip
    tl.store(out + i, value.to(out.dtype.element_ty), inside)


@kernel(spec.requantize, "cuda/triton-fused", rank=60, formats=(int32, int64), contiguous=True)
def requantize(
    x: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, axis: int, zero_point: int, low: int,
    high: int, ties: str, dtype: Format,
) -> Any:  # fmt: skip
    out: Any = gpu.xp().empty(x.shape, dtype.storage)
    inner = math.prod(x.shape[axis + 1 :])
    launch(
        run, (cdiv(x.size, BLOCK),), out, x, multiplier, shift, bias, x.size, x.shape[axis], inner, zero_point,
        low - zero_point, high - zero_point, EVEN=ties == "even", BLOCK=BLOCK, num_warps=4,
    )  # fmt: skip
    return out
