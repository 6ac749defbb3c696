"""One pass over keys and values with a running softmax (Dao et al. 2022): the matrix of scores is never in memory.

A program keeps a block of queries, and of each the largest score, the sum of exponentials and the result so far, which are put
right whenever a larger score comes. The gradient computes weights again from the kept logarithms of the sums: one kernel by
blocks of keys for dk and dv, over every head of queries that the keys serve, one by blocks of queries for dq. Every sum has one
program and one order, so bits repeat. Each draws dropout's words for a block of weights from their indices. Next limit: masks
are computed for every block, also where all of it is seen, and configurations are one for all.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.kernels import gpu
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.spec import LARGEST_HEAD, Dropout
from ulpgrad.kernels.attention.triton_operands import (
    FORMATS,
    block_of,
    dropping,
    four,
    given,
    kept,
    keys_seen,
    lengths_of,
    mask_of,
    masked,
    precision,
    queries_that_see,
    reach,
    stacked,
    steps,
    there,
    to_keys,
    to_queries,
)
from ulpgrad.kernels.attention.visible import Window
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton


def refusal(request: Request) -> str | None:
    """Heads whose blocks would not fit a program."""
    first = 1 if request.op is spec.attention_gradient else 0
    widest = max(a.shape[-1] for a in request.arrays[first : first + 3])
    if widest > LARGEST_HEAD:
        return f"takes heads of {LARGEST_HEAD} features at most, not {widest}"
    return None


@triton.jit
def attention_forward(
    y, lse, q, k, v, mask, query_lengths, key_lengths,
    heads, share, length, keys, left, right, d, e, q_batch, q_head, q_row, k_batch, k_head, k_row,
    v_batch, v_head, v_row, mask_batch, mask_head, mask_row, mask_column, scale,
    factor, limit, k0, k1, c0, c1, c2, c3,
    LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr, DROPOUT: tl.constexpr,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(length, M)
    block, which = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    rows_there, keys_there, place = there(query_lengths, key_lengths, batch, length, keys, LENGTHS, LOWER_RIGHT)
    rows = block * M + tl.arange(0, M)
    columns = tl.arange(0, N)
    in_d, in_e = tl.arange(0, D) < d, tl.arange(0, E) < e
    q += batch * q_batch + head * q_head
    k += batch * k_batch + head // share * k_head + tl.arange(0, D)[:, None]
    v += batch * v_batch + head // share * v_head + tl.arange(0, E)[None, :]
    mask += batch * mask_batch + head * mask_head
    own = tl.load(q + rows.to(tl.int64)[:, None] * q_row + tl.arange(0, D)[None, :],
                  mask=(rows < rows_there)[:, None] & in_d[None, :], other=0)  # fmt: skip
    top = tl.full((M,), -float("inf"), tl.float32)
    total = tl.zeros((M,), tl.float32)
    result = tl.zeros((M, E), tl.float32)
    begin, end = keys_seen(block * M + place, keys_there, left, right, IS_CAUSAL, WINDOW, M, N)
    for start in range(begin, end, N):
        at = start + columns
        key = tl.load(k + at.to(tl.int64)[None, :] * k_row, mask=in_d[:, None] & (at < keys_there)[None, :], other=0)
        s = tl.dot(own, key, input_precision=PRECISION) * scale
        s = masked(s, mask, rows[:, None], at[None, :], rows_there, keys_there, left, right, place, mask_row, mask_column,
                   IS_CAUSAL, WINDOW, MASK)  # fmt: skip
        higher = tl.maximum(top, tl.max(s, 1))
        base = tl.where(higher == -float("inf"), 0, higher)
        weights = tl.exp(s - base[:, None])
        shrink = tl.exp(top - base)
        value = tl.load(v + at.to(tl.int64)[:, None] * v_row, mask=(at < keys_there)[:, None] & in_e[None, :], other=0)
        total = total * shrink + tl.sum(weights, 1)
        if DROPOUT != 0:
            seen = kept(which * length + rows, start, keys, limit, k0, k1, c0, c1, c2, c3, DROPOUT, N, False)
            weights = tl.where(seen, weights, 0.0)
        result = tl.dot(weights.to(value.dtype), value, result * shrink[:, None], input_precision=PRECISION)
        top = higher
    result /= tl.where(total == 0, 1, total)[:, None]
    if DROPOUT != 0:
        result *= factor
    at = which * length + rows
    tl.store(lse + at, top + tl.log(total), mask=rows < length)
    tl.store(y + at[:, None] * e + tl.arange(0, E)[None, :], result.to(y.dtype.element_ty),
             mask=(rows < length)[:, None] & in_e[None, :])  # fmt: skip


@triton.jit
def attention_delta(
    delta, g, y, heads, length, e, g_batch, g_head, g_row, y_batch, y_head, y_row, M: tl.constexpr, E: tl.constexpr
):
    """What the softmax takes from the gradient of every weight of a row: the sum of g * y."""
    blocks = tl.cdiv(length, M)
    block, which = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    rows, j = block * M + tl.arange(0, M), tl.arange(0, E)[None, :]
    inside = (rows < length)[:, None] & (j < e)
    row = rows.to(tl.int64)[:, None]
    x = tl.load(g + batch * g_batch + head * g_head + row * g_row + j, mask=inside, other=0).to(tl.float32)
    x *= tl.load(y + batch * y_batch + head * y_head + row * y_row + j, mask=inside, other=0).to(tl.float32)
    tl.store(delta + which * length + rows, tl.sum(x, 1), mask=rows < length)


@triton.jit
def attention_keys_gradient(
    dk, dv, g, q, k, v, mask, query_lengths, key_lengths,
    lse, delta, heads, share, length, keys, left, right, d, e, g_batch, g_head, g_row, q_batch,
    q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch, mask_head, mask_row, mask_column, scale,
    factor, limit, k0, k1, c0, c1, c2, c3,
    LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr, DROPOUT: tl.constexpr,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys: scores stand transposed, (keys, queries), so that weights are a left operand as they are."""
    blocks = tl.cdiv(keys, N)
    block, which = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, shared = which // (heads // share), which % (heads // share)
    rows_there, keys_there, place = there(query_lengths, key_lengths, batch, length, keys, LENGTHS, LOWER_RIGHT)
    at = block * N + tl.arange(0, N)
    i, j = tl.arange(0, D), tl.arange(0, E)
    key_here, value_here = (at < keys)[:, None] & (i < d)[None, :], (at < keys)[:, None] & (j < e)[None, :]
    key = tl.load(k + batch * k_batch + shared * k_head + at.to(tl.int64)[:, None] * k_row + i[None, :],
                  mask=key_here & (at < keys_there)[:, None], other=0)  # fmt: skip
    value = tl.load(v + batch * v_batch + shared * v_head + at.to(tl.int64)[:, None] * v_row + j[None, :],
                    mask=value_here & (at < keys_there)[:, None], other=0)  # fmt: skip
    to_key = tl.zeros((N, D), tl.float32)
    to_value = tl.zeros((N, E), tl.float32)
    begin, end = queries_that_see(block * N - place, rows_there, left, right, IS_CAUSAL, WINDOW, M, N)
    for head in range(shared * share, shared * share + share):
        row_of_all = (batch * heads + head) * length
        for start in range(begin, end, M):
            rows = start + tl.arange(0, M)
            row = rows.to(tl.int64)
            here = rows < rows_there
            query = tl.load(q + batch * q_batch + head * q_head + row[:, None] * q_row + i[None, :],
                            mask=here[:, None] & (i < d)[None, :], other=0)  # fmt: skip
            grad = tl.load(g + batch * g_batch + head * g_head + row[:, None] * g_row + j[None, :],
                           mask=here[:, None] & (j < e)[None, :], other=0)  # fmt: skip
            base = tl.load(lse + row_of_all + rows, mask=here, other=float("inf")).to(tl.float32)
            base = tl.where(base == -float("inf"), float("inf"), base)
            own = tl.load(delta + row_of_all + rows, mask=here, other=0)
            s = tl.dot(key, tl.trans(query), input_precision=PRECISION) * scale
            s = masked(s, mask + batch * mask_batch + head * mask_head, rows[None, :], at[:, None], rows_there, keys_there,
                       left, right, place, mask_row, mask_column, IS_CAUSAL, WINDOW, MASK)  # fmt: skip
            weights = tl.exp(s - base[None, :])
            to_key, to_value = to_keys(to_key, to_value, weights, query, value, grad, own, row_of_all + row, block * N, keys,
                                       factor, limit, k0, k1, c0, c1, c2, c3, DROPOUT, N, PRECISION)  # fmt: skip
    if DROPOUT != 0:
        to_value *= factor
    out = which * keys + at[:, None]
    tl.store(dk + out * d + i[None, :], (to_key * scale).to(dk.dtype.element_ty), mask=key_here)
    tl.store(dv + out * e + j[None, :], to_value.to(dv.dtype.element_ty), mask=value_here)


@triton.jit
def attention_queries_gradient(
    dq, g, q, k, v, mask, query_lengths, key_lengths,
    lse, delta, heads, share, length, keys, left, right, d, e, g_batch, g_head, g_row, q_batch,
    q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, mask_batch, mask_head, mask_row, mask_column, scale,
    factor, limit, k0, k1, c0, c1, c2, c3,
    LENGTHS: tl.constexpr, LOWER_RIGHT: tl.constexpr, DROPOUT: tl.constexpr,
    IS_CAUSAL: tl.constexpr, WINDOW: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr, N: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries."""
    blocks = tl.cdiv(length, M)
    block, which = tl.program_id(0) % blocks, (tl.program_id(0) // blocks).to(tl.int64)
    batch, head = which // heads, which % heads
    rows_there, keys_there, place = there(query_lengths, key_lengths, batch, length, keys, LENGTHS, LOWER_RIGHT)
    rows, i, j = block * M + tl.arange(0, M), tl.arange(0, D), tl.arange(0, E)
    row, here = rows.to(tl.int64), rows < rows_there
    query = tl.load(q + batch * q_batch + head * q_head + row[:, None] * q_row + i[None, :],
                    mask=here[:, None] & (i < d)[None, :], other=0)  # fmt: skip
    grad = tl.load(g + batch * g_batch + head * g_head + row[:, None] * g_row + j[None, :],
                   mask=here[:, None] & (j < e)[None, :], other=0)  # fmt: skip
    base = tl.load(lse + which * length + rows, mask=here, other=float("inf")).to(tl.float32)
    base = tl.where(base == -float("inf"), float("inf"), base)
    own = tl.load(delta + which * length + rows, mask=here, other=0)
    mask += batch * mask_batch + head * mask_head
    k += batch * k_batch + head // share * k_head
    v += batch * v_batch + head // share * v_head
    result = tl.zeros((M, D), tl.float32)
    begin, end = keys_seen(block * M + place, keys_there, left, right, IS_CAUSAL, WINDOW, M, N)
    for start in range(begin, end, N):
        at = start + tl.arange(0, N)
        key = tl.load(k + at.to(tl.int64)[:, None] * k_row + i[None, :],
                      mask=(at < keys_there)[:, None] & (i < d)[None, :], other=0)  # fmt: skip
        value = tl.load(v + at.to(tl.int64)[:, None] * v_row + j[None, :],
                        mask=(at < keys_there)[:, None] & (j < e)[None, :], other=0)  # fmt: skip
        s = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
        s = masked(s, mask, rows[:, None], at[None, :], rows_there, keys_there, left, right, place, mask_row, mask_column,
                   IS_CAUSAL, WINDOW, MASK)  # fmt: skip
        weights = tl.exp(s - base[:, None])
        result = to_queries(result, weights, key, value, grad, own, which * length + row, start, keys, factor, limit,
                            k0, k1, c0, c1, c2, c3, DROPOUT, N, PRECISION)  # fmt: skip
    tl.store(dq + (which * length + rows)[:, None] * d + i[None, :], (result * scale).to(dq.dtype.element_ty),
             mask=(rows < length)[:, None] & (i < d)[None, :])  # fmt: skip


def _options(q: Any, widest: int, drops: bool) -> dict[str, int]:
    """Rows of queries, of keys, warps and stages whose blocks fit the registers and the shared memory of every GPU from sm_80:
    smaller ones with dropout, whose words take registers too."""
    if drops and q.dtype.itemsize == 2 and widest <= 128:
        return {"M": 64, "N": 64, "num_warps": 8, "num_stages": 2}
    if q.dtype.itemsize == 2 and widest <= 128:
        return {"M": 128, "N": 64, "num_warps": 4 if widest <= 64 else 8, "num_stages": 3}
    if widest <= 64:
        return {"M": 64, "N": 32, "num_warps": 8, "num_stages": 2}
    rows = 64 if q.dtype.itemsize == 2 else 32 if widest <= 128 else 16
    return {"M": rows, "N": 32 if rows > 16 else 16, "num_warps": 8, "num_stages": 1}


def _gradient_options(q: Any, widest: int, drops: bool) -> dict[str, int]:
    """The same for the gradients, which hold two results and four operands."""
    if q.dtype.itemsize == 2 and widest <= 128:
        return {"M": 64, "N": 32 if drops else 64, "num_warps": 8, "num_stages": 2}
    rows = 32 if q.dtype.itemsize == 2 or widest <= 64 else 16  # three products for one of float32 take many registers
    return {"M": rows, "N": rows, "num_warps": 8, "num_stages": 2 if widest <= 64 else 1}


@kernel(spec.attention, "cuda/triton-fused", rank=50, formats=FORMATS, where=refusal)
def attention(
    q: Any, k: Any, v: Any, mask: Any, query_lengths: Any = None, key_lengths: Any = None, *, is_causal: bool, scale: float,
    window: Window = None, lower_right: bool = False, dropout: Dropout | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    xp, shape = gpu.xp(), q.shape[:-1]
    seen = mask_of(mask, q, k.shape[-2])
    q, k, v = (four(stacked(a)) for a in (q, k, v))
    (batch, heads, length, d), (keys, e) = q.shape, v.shape[2:]
    y, lse = xp.empty((batch, heads, length, e), q.dtype), xp.empty((batch, heads, length), "float32")
    near, seeing = reach(is_causal, window, length, keys)
    drops, drawing = dropping(dropout, keys)
    options = _options(q, max(block_of(d), block_of(e)), dropout is not None)
    lengths, known = lengths_of(query_lengths, key_lengths, lower_right, q)
    launch(
        attention_forward, (cdiv(length, options["M"]) * batch * heads,), given(y), lse, given(q), given(k), given(v),
        seen.array, *lengths, heads, heads // max(1, k.shape[1]), length, keys, *near, d, e, *steps(q), *steps(k),
        *steps(v), *seen.steps, float(scale), *drops, **known, **seeing, **drawing, MASK=seen.kind, D=block_of(d), E=block_of(e),
        PRECISION=precision(q), **options,
    )  # fmt: skip
    return y.reshape(*shape, e), lse.reshape(shape)


def deltas(g: Any, y: Any) -> Any:
    """The sum of g y over each row of (batch, heads, length, e): what both passes of the gradient subtract."""
    batch, heads, length, e = y.shape
    delta = gpu.xp().empty((batch, heads, length), "float32")
    launch(
        attention_delta, (cdiv(length, 32) * batch * heads,), delta, given(g), given(y), heads, length, e, *steps(g),
        *steps(y), M=32, E=block_of(e), num_warps=8,
    )  # fmt: skip
    return delta


@kernel(spec.attention_gradient, "cuda/triton-fused", rank=50, formats=FORMATS, where=refusal)
def attention_gradient(
    g: Any, q: Any, k: Any, v: Any, mask: Any, y: Any, lse: Any, query_lengths: Any = None, key_lengths: Any = None, *,
    is_causal: bool, scale: float, window: Window = None, lower_right: bool = False, dropout: Dropout | None = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    xp, shapes = gpu.xp(), (q.shape, k.shape, v.shape)
    seen = mask_of(mask, q, k.shape[-2])
    g, q, k, v, y = (four(stacked(a)) for a in (g, q, k, v, y))
    (batch, heads, length, d), (keys, e) = q.shape, v.shape[2:]
    lse, delta = gpu.contiguous(lse), deltas(g, y)
    dq, dk, dv = (xp.empty(a.shape, a.dtype) for a in (q, k, v))
    near, seeing = reach(is_causal, window, length, keys)
    drops, drawing = dropping(dropout, keys)
    blocks = _gradient_options(q, max(block_of(d), block_of(e)), dropout is not None)
    lengths, known = lengths_of(query_lengths, key_lengths, lower_right, q)
    operands = (given(g), given(q), given(k), given(v), seen.array, *lengths, given(lse), delta, heads,
                heads // max(1, k.shape[1]),
                length, keys, *near, d, e, *steps(g), *steps(q), *steps(k), *steps(v), *seen.steps, float(scale),
                *drops)  # fmt: skip
    options = {**known, **seeing, **drawing, "MASK": seen.kind, "D": block_of(d), "E": block_of(e), "PRECISION": precision(q),
               **blocks}  # fmt: skip
    launch(
        attention_keys_gradient,
        (cdiv(keys, blocks["N"]) * batch * k.shape[1],),
        given(dk),
        given(dv),
        *operands,
        **options,
    )
    launch(attention_queries_gradient, (cdiv(length, blocks["M"]) * batch * heads,), given(dq), *operands, **options)
    return dq.reshape(shapes[0]), dk.reshape(shapes[1]), dv.reshape(shapes[2])
