"""Warps that specialise, in Gluon: one loads keys and values, two groups of four multiply and take exponentials, and neither
waits for what the other does in between.

A program has 128 queries, 64 for each group. Blocks of 128 keys and values travel by the tensor memory accelerator through
rings of two stages; barriers in shared memory say when a stage is full, and when both groups have read it. Each group has the
next block's scores made while the last block's weights still meet their values, and takes the exponentials of the first while
the second product runs. The loading warp gives its registers to the groups. Blocks come from the last to the first, so that those
that need comparisons are over first. Results and logarithms mean what those of `triton-tuned` do, whose gradient follows.

It has run on the host, where copies and products come as late as they may, but not on a GPU: it is ranked below `triton-tuned`,
and taken only where it is asked for. Next limit: a program ends with its tile, and the next one's first copies wait until it has.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.formats import bfloat16, float16
from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.spec import USUAL_HEADS
from ulpgrad.kernels.attention.triton_operands import format_of, four, stacked
from ulpgrad.kernels.attention.triton_tuned import LOG2_E, by_descriptor
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_gluon import (
    copy_in,
    copy_out,
    described,
    fence_async_shared,
    gl,
    gluon,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from ulpgrad.kernels.triton_launch import cdiv, launch

ARCHITECTURE = 90  # whose warp groups multiply so: later ones have other units
ROWS = 64  # queries of a group
KEYS = 128  # keys of a block
STAGES = 2  # blocks of keys, and of values, that are there at a time


@gluon.jit
def blocks_seen(first, keys, IS_CAUSAL: gl.constexpr, M: gl.constexpr, N: gl.constexpr):
    """How many blocks of N keys some of M queries see, the first of which stands at the place `first`; one at least. And how many
    all of the queries see whole."""
    end, whole = keys, keys // N
    if IS_CAUSAL:
        end, whole = min(keys, max(first + M, 1)), min(whole, max(first + 1, 0) // N)
    return (end + N - 1) // N, whole


@gluon.jit
def turn(step, STAGES: gl.constexpr):
    """The stage of a step, and the parity of its round."""
    return step % STAGES, step // STAGES & 1


@gluon.jit
def load(q, k, v, to_q, to_k, to_v, q_full, k_full, k_empty, v_full, v_empty, batch, head, shared, row, count,
         ROWS: gl.constexpr, N: gl.constexpr, WIDTH: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """The warp that loads: each group's queries, then keys and values, block by block."""
    for side in gl.static_range(2):
        mbarrier.expect(q_full.index(side), ROWS * WIDTH * 2)
        copy_in(q, [batch, head, row + side * ROWS, 0], q_full.index(side), to_q.index(side))
    for step in range(count):
        stage, parity = turn(step, STAGES)
        start = (count - 1 - step) * N
        mbarrier.wait(k_empty.index(stage), parity ^ 1)
        mbarrier.expect(k_full.index(stage), N * WIDTH * 2)
        copy_in(k, [batch, shared, start, 0], k_full.index(stage), to_k.index(stage))
        mbarrier.wait(v_empty.index(stage), parity ^ 1)
        mbarrier.expect(v_full.index(stage), N * WIDTH * 2)
        copy_in(v, [batch, shared, start, 0], v_full.index(stage), to_v.index(stage))


@gluon.jit
def scores(own, to_k, k_full, step, LAYOUT: gl.constexpr, ROWS: gl.constexpr, N: gl.constexpr, WIDTH: gl.constexpr,
           STAGES: gl.constexpr):  # fmt: skip
    """The product of queries and keys, begun as soon as the keys are there."""
    stage, parity = turn(step, STAGES)
    mbarrier.wait(k_full.index(stage), parity)
    key = to_k.index(stage).reshape([N, WIDTH]).permute([1, 0])
    nothing = gl.zeros([ROWS, N], gl.float32, LAYOUT)
    return warpgroup_mma(own, key, nothing, use_acc=False, is_async=True)


@gluon.jit
def softened(s, top, total, seen, start, scale, EDGE: gl.constexpr, LAYOUT: gl.constexpr, N: gl.constexpr):
    """The weights of scores, the largest score and the sum of weights so far, and what earlier results are multiplied by. Each
    query sees so many keys in all; EDGE where some of these may not be seen."""
    if EDGE:
        at = start + gl.arange(0, N, layout=gl.SliceLayout(0, LAYOUT))
        s = gl.where(at[None, :] < seen[:, None], s, -float("inf"))
    higher = gl.maximum(top, gl.max(s, 1) * scale)
    base = gl.where(higher == -float("inf"), 0.0, higher)
    weights = gl.exp2(s * scale - base[:, None])
    shrink = gl.exp2(top - base)
    return weights, higher, total * shrink + gl.sum(weights, 1), shrink


@gluon.jit
def sweep(own, weights, result, top, total, to_k, to_v, k_full, k_empty, v_full, v_empty, begin, end, count, seen, scale,
          EDGE: gl.constexpr, SCORES: gl.constexpr, RESULT: gl.constexpr, WEIGHTS: gl.constexpr, ROWS: gl.constexpr,
          N: gl.constexpr, WIDTH: gl.constexpr, STAGES: gl.constexpr):  # fmt: skip
    """The steps from begin to end; EDGE where some keys may not be seen. The weights of the step before have not met their values
    yet, which are there."""
    for step in range(begin, end):
        before = (step - 1) % STAGES
        operand = gl.convert_layout(weights.to(to_v.dtype), WEIGHTS)
        s = scores(own, to_k, k_full, step, SCORES, ROWS, N, WIDTH, STAGES)
        result = warpgroup_mma(operand, to_v.index(before).reshape([N, WIDTH]), result, is_async=True)
        s = warpgroup_mma_wait(1, deps=(s,))
        mbarrier.arrive(k_empty.index(step % STAGES), count=1)
        weights, top, total, shrink = softened(s, top, total, seen, (count - 1 - step) * N, scale, EDGE, SCORES, N)
        # Waiting for values here keeps the exponentials in front of the wait for the product: the assembler moves them across
        # it otherwise, where they overlap with nothing.
        stage, parity = turn(step, STAGES)
        mbarrier.wait(v_full.index(stage), parity)
        result, operand, weights = warpgroup_mma_wait(0, deps=(result, operand, weights))
        mbarrier.arrive(v_empty.index(before), count=1)
        result = result * gl.convert_layout(shrink, gl.SliceLayout(1, RESULT))[:, None]
    return weights, result, top, total


@gluon.jit
def multiply(side, y, lse, to_q, to_k, to_v, q_full, k_full, k_empty, v_full, v_empty, batch, head, first, row, count, whole,
             length, keys, place, scale, IS_CAUSAL: gl.constexpr, ROWS: gl.constexpr, N: gl.constexpr, WIDTH: gl.constexpr,
             STAGES: gl.constexpr):  # fmt: skip
    """A group of four warps: 64 queries, from the first block of keys to the finished rows."""
    SCORES: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, N, 16])
    RESULT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, WIDTH, 16])
    WEIGHTS: gl.constexpr = gl.DotOperandLayout(0, RESULT, 2)
    own = to_q.index(side).reshape([ROWS, WIDTH])
    begin = row + side * ROWS
    rows = begin + gl.arange(0, ROWS, layout=gl.SliceLayout(1, SCORES))
    seen = gl.full([ROWS], keys, gl.int32, gl.SliceLayout(1, SCORES))
    if IS_CAUSAL:
        seen = gl.minimum(seen, rows + place + 1)
    top = gl.full([ROWS], -float("inf"), gl.float32, gl.SliceLayout(1, SCORES))
    total = gl.zeros([ROWS], gl.float32, gl.SliceLayout(1, SCORES))
    result = gl.zeros([ROWS, WIDTH], gl.float32, RESULT)
    mbarrier.wait(q_full.index(side), 0)
    s = warpgroup_mma_wait(0, deps=(scores(own, to_k, k_full, 0, SCORES, ROWS, N, WIDTH, STAGES),))
    mbarrier.arrive(k_empty.index(0), count=1)
    weights, top, total, _ = softened(s, top, total, seen, (count - 1) * N, scale, True, SCORES, N)
    mbarrier.wait(v_full.index(0), 0)
    clear = max(count - whole, 1)
    weights, result, top, total = sweep(
        own, weights, result, top, total, to_k, to_v, k_full, k_empty, v_full, v_empty, 1, clear, count, seen, scale,
        True, SCORES, RESULT, WEIGHTS, ROWS, N, WIDTH, STAGES,
    )  # fmt: skip
    weights, result, top, total = sweep(
        own, weights, result, top, total, to_k, to_v, k_full, k_empty, v_full, v_empty, clear, count, count, seen, scale,
        False, SCORES, RESULT, WEIGHTS, ROWS, N, WIDTH, STAGES,
    )  # fmt: skip
    operand = gl.convert_layout(weights.to(to_v.dtype), WEIGHTS)
    last = to_v.index((count - 1) % STAGES).reshape([N, WIDTH])
    result = warpgroup_mma(operand, last, result, is_async=True)
    result, operand = warpgroup_mma_wait(0, deps=(result, operand))
    gl.store(lse + first + rows, (top + gl.log2(total)) * 0.6931471805599453, mask=rows < length)
    share = gl.where(total == 0, 1.0, total)
    result = result / gl.convert_layout(share, gl.SliceLayout(1, RESULT))[:, None]
    own.store(result.to(to_q.dtype))  # in the place of the queries, which nobody reads any more
    fence_async_shared()
    copy_out(y, [batch, head, begin, 0], to_q.index(side))
    tma.store_wait(0)


@gluon.jit
def attention_forward_gluon(
    y, lse, q, k, v, heads, share, length, keys, place, scale, IS_CAUSAL: gl.constexpr, ROWS: gl.constexpr, N: gl.constexpr,
    WIDTH: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    M: gl.constexpr = 2 * ROWS
    blocks = (length + M - 1) // M
    block, which = blocks - 1 - gl.program_id(0) % blocks, gl.program_id(0) // blocks  # the longest rows begin first
    batch, head = which // heads, which % heads
    row, first = block * M, gl.cast(which, gl.int64) * length
    count, whole = blocks_seen(row + place, keys, IS_CAUSAL, M, N)
    to_q = gl.allocate_shared_memory(q.dtype, [2, 1, 1, ROWS, WIDTH], q.layout)
    to_k = gl.allocate_shared_memory(k.dtype, [STAGES, 1, 1, N, WIDTH], k.layout)
    to_v = gl.allocate_shared_memory(v.dtype, [STAGES, 1, 1, N, WIDTH], v.layout)
    q_full = gl.allocate_shared_memory(gl.int64, [2, 1], mbarrier.MBarrierLayout())
    k_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    k_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_full = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    v_empty = gl.allocate_shared_memory(gl.int64, [STAGES, 1], mbarrier.MBarrierLayout())
    for side in gl.static_range(2):
        mbarrier.init(q_full.index(side), count=1)
    for stage in gl.static_range(STAGES):
        mbarrier.init(k_full.index(stage), count=1)
        mbarrier.init(k_empty.index(stage), count=2)
        mbarrier.init(v_full.index(stage), count=1)
        mbarrier.init(v_empty.index(stage), count=2)
    fence_async_shared()
    gl.warp_specialize(
        [
            (multiply, (0, y, lse, to_q, to_k, to_v, q_full, k_full, k_empty, v_full, v_empty, batch, head, first, row, count,
                        whole, length, keys, place, scale, IS_CAUSAL, ROWS, N, WIDTH, STAGES)),
            (multiply, (1, y, lse, to_q, to_k, to_v, q_full, k_full, k_empty, v_full, v_empty, batch, head, first, row, count,
                        whole, length, keys, place, scale, IS_CAUSAL, ROWS, N, WIDTH, STAGES)),
            (load, (q, k, v, to_q, to_k, to_v, q_full, k_full, k_empty, v_full, v_empty, batch, head, head // share, row, count,
                    ROWS, N, WIDTH, STAGES)),
        ],
        [4, 1],  # warps of the second and the third
        [240, 24],  # and registers of their threads; the first has what is left, 240 too
    )  # fmt: skip


def refusal(request: Request) -> str | None:
    """Why the rung does not take a call, or None."""
    (q, k, v, mask, *lengths), params = request.arrays, request.params
    if gpu.capability() != ARCHITECTURE:
        return f"needs the units of sm_{ARCHITECTURE}, which are its alone; this is sm_{gpu.capability()}"
    if mask is not None or any(n is not None for n in lengths):
        return "knows no mask and no lengths"
    if q.shape[-1] != v.shape[-1] or q.shape[-1] not in USUAL_HEADS:
        sizes = " or ".join(map(str, USUAL_HEADS))
        return f"takes heads of {sizes} features, values as wide as keys, not {q.shape[-1]} and {v.shape[-1]}"
    if k.shape[-2] == 0:
        return "takes one key at least"
    if params["scale"] <= 0:
        return "takes a positive scale"
    return spec.unwindowed(request) or spec.undropped(request)


def laid(a: Any) -> Any:
    """(batch, heads, length, features) as the copy unit reads it; copied only where it must be."""
    a = four(stacked(a))
    return a if by_descriptor(a) else gpu.xp().array(a, order="C")


@kernel(spec.attention, "cuda/triton-gluon", rank=55, formats=(float16, bfloat16), where=refusal)
def attention(
    q: Any, k: Any, v: Any, mask: None, query_lengths: None = None, key_lengths: None = None, *, is_causal: bool, scale: float,
    window: None = None, lower_right: bool = False, dropout: None = None,
) -> tuple[Any, Any]:  # fmt: skip
    xp, shape = gpu.xp(), q.shape[:-1]
    q, k, v = (laid(a) for a in (q, k, v))
    (batch, heads, length, width), keys, form = q.shape, k.shape[2], format_of(q)
    y, lse = xp.empty((batch, heads, length, width), q.dtype), xp.empty((batch, heads, length), "float32")
    launch(
        attention_forward_gluon, (cdiv(length, 2 * ROWS) * batch * heads,), described(y, form, (1, 1, ROWS, width)), lse,
        described(q, form, (1, 1, ROWS, width)), *(described(a, form, (1, 1, KEYS, width)) for a in (k, v)), heads,
        heads // max(1, k.shape[1]), length, keys, keys - length if lower_right else 0, float(scale) * LOG2_E,
        IS_CAUSAL=is_causal, ROWS=ROWS, N=KEYS, WIDTH=width, STAGES=STAGES, num_warps=4,
    )  # fmt: skip
    return y.reshape(*shape, width), lse.reshape(shape)
