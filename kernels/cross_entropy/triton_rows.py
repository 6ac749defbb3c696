"""One sweep over each row of logits finds its maximum and, rescaled as the maximum grows, the sum of exponentials; the softmax is
never stored. The gradient is one elementwise launch, since the row's log-sum-exp is kept.

A class that is out of range cannot be refused without waiting for the GPU: its row's loss and gradient are NaN.
Next limit: reading the logits, once forward; backward a read and a write.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import INTEGERS, bfloat16, compute_format, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.cross_entropy import spec
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.statistics import beside
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton, typed
from ulpgrad.kernels.triton_lines import power, warps, wide

FORMATS = [float16, bfloat16, float32, float64, *INTEGERS]
PIECE, TILE = 8192, 2048


@triton.jit
def _forward(
    losses, lse, logits, target, rows, n, ignored,
    SMOOTHING: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    row, value = tl.program_id(0) * LINES + tl.arange(0, LINES), tl.arange(0, VALUES)
    there = row < rows
    kind: tl.constexpr = lse.dtype.element_ty
    top = tl.full([LINES], float("-inf"), kind)
    shift = tl.zeros([LINES], kind)
    total = tl.zeros([LINES], kind)
    plain = tl.zeros([LINES], kind)
    for start in range(0, n, VALUES):
        inside = there[:, None] & (start + value < n)[None, :]
        at = row.to(tl.int64)[:, None] * n + (start + value)[None, :]
        v = wide(tl.load(logits + at, mask=inside, other=float("-inf")))
        new = tl.maximum(top, tl.max(v, 1))
        shift = tl.where(new == float("-inf"), 0.0, new)
        total = total * tl.exp(top - shift) + tl.sum(tl.exp(v - shift[:, None]), 1)
        top = new
        if SMOOTHING > 0:
            plain += tl.sum(tl.where(inside, v, 0.0), 1)
    found = tl.where(top == float("-inf"), float("nan"), shift + tl.log(total))
    chosen = tl.load(target + row, mask=there, other=0).to(tl.int64)
    is_kept = chosen != ignored
    is_class = (chosen >= 0) & (chosen < n)
    at = row.to(tl.int64) * n + tl.where(is_class, chosen, 0)
    picked = wide(tl.load(logits + at, mask=there & is_class, other=0.0))
    loss = tl.zeros([LINES], kind)
    if SMOOTHING < 1:
        loss += (1 - SMOOTHING) * (found - picked)
    if SMOOTHING > 0:
        loss += SMOOTHING * (found - plain / n)
    loss = tl.where(is_class, loss, float("nan"))
    tl.store(losses + row, tl.where(is_kept, loss, 0.0).to(losses.dtype.element_ty), mask=there)
    tl.store(lse + row, found, mask=there)


@triton.jit
def _backward(
    out, g, logits, target, lse, rows, n, ignored, pieces,
    SMOOTHING: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0) // pieces
    row, value = block * LINES + tl.arange(0, LINES), tl.program_id(0) % pieces * VALUES + tl.arange(0, VALUES)
    there = row < rows
    inside = there[:, None] & (value < n)[None, :]
    at = row.to(tl.int64)[:, None] * n + value[None, :]
    chosen = tl.load(target + row, mask=there, other=0).to(tl.int64)
    is_class = (chosen >= 0) & (chosen < n)
    scale = wide(tl.load(g + row, mask=there, other=0.0))
    scale = tl.where(is_class, scale, float("nan"))[:, None]
    kept = wide(tl.load(lse + row, mask=there, other=0.0))[:, None]
    v = tl.exp(wide(tl.load(logits + at, mask=inside, other=0.0)) - kept)
    share = tl.full([1, 1], 1.0 - SMOOTHING, v.dtype)
    v = tl.where(value[None, :] == chosen[:, None], v - share, v)
    if SMOOTHING > 0:
        v -= tl.full([1, 1], SMOOTHING, v.dtype) / n
    v = tl.where((chosen != ignored)[:, None], scale * v, 0.0)
    tl.store(out + at, v.to(out.dtype.element_ty), mask=inside)


def shape_of(rows: int, n: int, piece: int) -> dict[str, int]:
    """Tiles of rows x classes."""
    values = power(min(n, piece))
    lines = min(max(TILE // values, 1), power(rows))
    return {"LINES": lines, "VALUES": values, "num_warps": warps(lines * values)}


@kernel(spec.cross_entropy, "cuda/triton-rows", rank=60, formats=FORMATS, contiguous=True, build=True)
def cross_entropy(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    kept = compute_format(form).storage

    def run(logits: Any, target: Any, *, ignore_index: int | None, label_smoothing: float) -> tuple[Any, Any]:
        xp, (rows, n) = gpu.xp(), logits.shape
        losses = xp.empty(rows, logits.dtype)
        if not logits.size:  # without classes every row is ignored
            return xp.zeros(rows, logits.dtype), xp.full(rows, float("-inf"), kept)
        lse = xp.empty(rows, kept)
        tile = shape_of(rows, n, PIECE)
        launch(_forward, (cdiv(rows, tile["LINES"]),), typed(losses, form), lse, typed(logits, form), target, rows, n,
               spec.ignored(ignore_index), SMOOTHING=float(label_smoothing), **tile)  # fmt: skip
        return losses, lse

    return run


@kernel(spec.cross_entropy_gradient, "cuda/triton-rows", rank=60, formats=FORMATS, contiguous=True, build=True,
        where=beside((0, 1), (3,)))  # fmt: skip
def cross_entropy_gradient(request: Request) -> Callable[..., Any]:
    form, of_lse = request.formats[1], request.formats[3]
    assert form is not None
    assert of_lse is not None

    def run(
        g: Any, logits: Any, target: Any, lse: Any, *, ignore_index: int | None, label_smoothing: float
    ) -> Any:  # fmt: skip
        rows, n = logits.shape
        out = gpu.xp().empty(logits.shape, logits.dtype)
        if out.size:
            tile = shape_of(rows, n, TILE)
            pieces = cdiv(n, tile["VALUES"])
            launch(_backward, (cdiv(rows, tile["LINES"]) * pieces,), typed(out, form), typed(g, form),
                   typed(logits, form), target, typed(lse, of_lse), rows, n, spec.ignored(ignore_index), pieces,
                   SMOOTHING=float(label_smoothing), **tile)  # fmt: skip
        return out

    return run
