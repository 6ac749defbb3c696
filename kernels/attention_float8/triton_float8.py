"""Queries times keys on the units for 8-bit floats, twice as fast as those for 16 bits; softmax in float32; weights and values
as float16. Weights of 4 bits (float8_e4m3fn) would let the second product run as fast too, but err by up to 2^-4 each where
float16's err by 2^-12: beside values that are exact in float16 their error would be the result's. Where there is no such unit
(before sm_89), or a float32 result wants better scores than sums of 14 bits, queries and keys are float16 as well: exact.

A program keeps a block of queries; blocks of keys that all of them see skip every comparison, unless there is a mask, which is
read for every block. Next limit: the second product takes twice the time of the first, and blocks are
not moved by the tensor memory accelerator.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Float, Format, bfloat16, bool_, float32, int32
from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention.spec import LARGEST_HEAD
from ulpgrad.kernels.attention.triton_operands import NO_MASK, block_of, four, mask_of, stacked, steps
from ulpgrad.kernels.attention.triton_tuned import LOG2_E
from ulpgrad.kernels.attention_float8 import spec
from ulpgrad.kernels.blocks.triton_operands import as_float16
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton, typed

# By architecture, the widest head and its rows of queries, of keys, warps and stages of the pipeline.
BLOCKS: dict[int, tuple[tuple[int, tuple[int, int, int, int]], ...]] = {
    90: ((64, (128, 128, 8, 3)), (128, (128, 64, 8, 3)), (256, (64, 64, 8, 2))),
    80: ((64, (128, 64, 8, 3)), (128, (64, 64, 8, 2)), (256, (64, 32, 8, 2))),
}


@triton.jit
def over_keys(
    result, total, top, own, k, v, mask, begin, end, rows, length, keys, place, d, e, k_row, v_row, mask_row, mask_column, factor,
    MASKED: tl.constexpr, MASK: tl.constexpr, IS_CAUSAL: tl.constexpr, WIDEN: tl.constexpr, K_BITS: tl.constexpr,
    V_BITS: tl.constexpr, N: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """The running softmax over keys from `begin` to `end`."""
    i, j = tl.arange(0, D)[:, None], tl.arange(0, E)[None, :]
    nothing: tl.constexpr = 0 if WIDEN else 0.0
    row_places = rows.to(tl.int64) * mask_row
    for start in range(begin, end, N):
        at = start + tl.arange(0, N)
        row = at.to(tl.int64)
        if MASKED:
            here = at < keys
            key = tl.load(k + row[None, :] * k_row + i, (i < d) & here[None, :], nothing)
            value = tl.load(v + row[:, None] * v_row + j, (j < e) & here[:, None], 0)
        else:
            key = tl.load(k + row[None, :] * k_row + i, i < d, nothing)
            value = tl.load(v + row[:, None] * v_row + j, j < e, 0)
        if WIDEN:
            key = as_float16(key, K_BITS)
        s = tl.dot(own, key, out_dtype=tl.float32) * factor
        if MASKED:
            seen = (rows < length)[:, None] & here[None, :]
            if MASK:
                seen = seen & (tl.load(mask + row_places[:, None] + row[None, :] * mask_column, seen, 0) != 0)
            if IS_CAUSAL:
                seen = seen & ((rows + place)[:, None] >= at[None, :])
            s = tl.where(seen, s, -float("inf"))
        higher = tl.maximum(top, tl.max(s, 1))
        base = tl.where(higher == -float("inf"), 0, higher)
        weights = tl.exp2(s - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(weights, 1)
        result = tl.dot(weights.to(tl.float16), as_float16(value, V_BITS), result * shrink[:, None])
        top = higher
    return result, total, top


@triton.jit
def attention_float8(
    y, q, k, v, mask, scales, heads, share, length, keys, place, d, e, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch,
    v_head, v_row, mask_batch, mask_head, mask_row, mask_column, scale, factor, IS_CAUSAL: tl.constexpr, MASK: tl.constexpr,
    SCALES: tl.constexpr, WIDEN: tl.constexpr, Q_BITS: tl.constexpr, K_BITS: tl.constexpr,
    V_BITS: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(length, M)
    which = (tl.program_id(0) // blocks).to(tl.int64)
    block = blocks - 1 - tl.program_id(0) % blocks  # the longest rows first
    batch, head = which // heads, which % heads
    rows = block * M + tl.arange(0, M)
    i, j = tl.arange(0, D)[None, :], tl.arange(0, E)[None, :]
    q += batch * q_batch + head * q_head
    k += batch * k_batch + head // share * k_head
    v += batch * v_batch + head // share * v_head
    if MASK:
        mask += batch * mask_batch + head * mask_head
    if SCALES:
        scale *= tl.load(scales + 2 * which).to(tl.float32, bitcast=True)
        factor *= tl.load(scales + 2 * which + 1).to(tl.float32, bitcast=True)
    nothing: tl.constexpr = 0 if WIDEN else 0.0
    own = tl.load(q + rows.to(tl.int64)[:, None] * q_row + i, (rows < length)[:, None] & (i < d), nothing)
    if WIDEN:
        own = as_float16(own, Q_BITS)
    top = tl.full((M,), -float("inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    result = tl.zeros((M, E), tl.float32)
    end, whole = keys, keys // N * N
    if IS_CAUSAL:
        first = block * M + place  # the last key that the first row sees
        end = tl.maximum(tl.minimum(keys, first + M), 0)
        whole = tl.minimum(whole, tl.maximum(first + 1, 0) // N * N)
    if MASK:
        whole = 0
    else:
        result, total, top = over_keys(
            result, total, top, own, k, v, mask, 0, whole, rows, length, keys, place, d, e, k_row, v_row, mask_row, mask_column,
            scale, False, MASK, IS_CAUSAL, WIDEN, K_BITS, V_BITS, N, D, E,
        )  # fmt: skip
    result, total, top = over_keys(
        result, total, top, own, k, v, mask, whole, end, rows, length, keys, place, d, e, k_row, v_row, mask_row, mask_column,
        scale, True, MASK, IS_CAUSAL, WIDEN, K_BITS, V_BITS, N, D, E,
    )  # fmt: skip
    result *= (factor / tl.where(total == 0, 1, total))[:, None]
    at = which * length + rows
    tl.store(y + at[:, None] * e + j, result.to(y.dtype.element_ty), (rows < length)[:, None] & (j < e))


def blocks_for(widest: int, widen: bool, masked: bool) -> dict[str, int]:
    """The sizes of blocks for heads of so many features on the current device, and Triton's options."""
    arch = 90 if gpu.generation() >= 90 else 80
    if arch == 90 and widen and widest > 128:
        return {"M": 64, "N": 32, "num_warps": 8, "num_stages": 1}  # operands in float16 leave registers for no more
    m, n, warps, stages = next(sizes for most, sizes in BLOCKS[arch] if widest <= most)
    if arch == 90 and widen and masked:
        n = min(n, 64)  # nor do masks
    return {"M": m, "N": n, "num_warps": warps, "num_stages": stages}


def _bits(form: Format | None) -> int:
    assert isinstance(form, Float)
    return form.exponent_bits


def _refusal(request: Request) -> str | None:
    q, _, v, *_ = request.arrays
    widest = max(q.shape[-1], v.shape[-1])
    return f"takes heads of {LARGEST_HEAD} features at most, not {widest}" if widest > LARGEST_HEAD else None


@kernel(
    spec.attention_float8,
    "cuda/triton-float8",
    rank=60,
    formats=(*spec.FORMATS, bool_, int32),
    where=_refusal,
    build=True,
)
def attention(request: Request) -> Any:
    forms = request.formats
    assert forms[0] is not None
    assert forms[1] is not None
    bits = dict(zip(("Q_BITS", "K_BITS", "V_BITS"), map(_bits, forms[:3]), strict=True))
    named = forms[0], forms[1]

    def run(
        q: Any, k: Any, v: Any, mask: Any = None, scales: Any = None, *, is_causal: bool, scale: float, factor: float = 1.0,
        lower_right: bool = False, dtype: Format = bfloat16,
    ) -> Any:  # fmt: skip
        shape, seen = (*q.shape[:-1], v.shape[-1]), mask_of(mask, q, k.shape[-2])
        by_head = q if scales is None else gpu.contiguous(scales)  # q's memory is never read
        q, k, v = (four(stacked(a)) for a in (q, k, v))
        (batch, heads, length, d), (keys, e) = q.shape, v.shape[2:]
        y = gpu.xp().empty((batch, heads, length, e), dtype.storage)
        widen = dtype is float32 or gpu.capability() < 89
        wide = block_of(d), block_of(e)
        features = (max(wide[0], 32), wide[1])  # of which 8-bit units take 32 at least
        options = blocks_for(max(features), widen, mask is not None)
        queries, of_keys = (q, k) if widen else (typed(q, named[0]), typed(k, named[1]))
        launch(
            attention_float8, (cdiv(length, options["M"]) * batch * heads if y.size else 0,), typed(y, dtype), queries, of_keys,
            v, seen.array, by_head, heads, heads // max(1, k.shape[1]), length, keys, keys - length if lower_right else 0, d, e,
            *steps(q), *steps(k), *steps(v), *seen.steps, float(scale * LOG2_E), float(factor), IS_CAUSAL=is_causal,
            MASK=seen.kind != NO_MASK, SCALES=scales is not None, WIDEN=widen, **bits, D=features[0], E=features[1], **options,
        )  # fmt: skip
        return y.reshape(shape)

    return run
