"""The loss of a model's last layer by chunks of rows: logits of many rows and many classes never exist at once."""

from __future__ import annotations

import math
from typing import Any

from ulpgrad import dispatch
from ulpgrad.autograd import enable_grad, grad, is_grad_enabled
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import compute_format
from ulpgrad.function import Context, Function
from ulpgrad.ops.common import as_tensor
from ulpgrad.ops.creation import astype
from ulpgrad.ops.linalg import linear
from ulpgrad.ops.loss import cross_entropy, reduced
from ulpgrad.ops.manipulation import concat, reshape
from ulpgrad.tensor import Tensor

__all__ = ["linear_cross_entropy"]

MOST_LOGITS = 1 << 24  # of a chunk, where the caller names none


def linear_cross_entropy(
    x: Any,
    weight: Tensor,
    bias: Tensor | None,
    target: Any,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    chunk: int | None = None,
) -> Tensor:
    """`cross_entropy(linear(x, weight, bias), target)` in the memory of `chunk` rows of logits (default: as many as have 2^24).

    x (..., in), weight (classes, in), bias (classes,), target (...) of class indices; the rest is as in `cross_entropy`. The
    gradient computes the logits of each chunk once more; those of weight and bias are summed over chunks in float32 (float64
    for float64), in order. Under a policy (autocast, quantization) it is the plain composition, whose ops policies know.
    """
    x, target = as_tensor(x), as_tensor(target)
    if x.ndim == 0 or target.shape != x.shape[:-1]:
        raise ShapeError(
            f"linear_cross_entropy: target has shape {target.shape}, x {x.shape}: expected one class index for each row of x"
        )
    if target.dtype.kind != "integer":
        raise FormatError(
            f"linear_cross_entropy: targets are {target.dtype.name}: expected integers, the indices of classes"
        )
    if chunk is not None and chunk < 1:
        raise ArgumentError(f"linear_cross_entropy: chunk={chunk}: expected a number of rows of at least 1")
    rows, classes = reshape(x, (math.prod(x.shape[:-1]), x.shape[-1])), reshape(target, (-1,))
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    if dispatch.state.policies:
        losses = _losses(rows, weight, bias, classes, options)
    else:
        size = chunk or max(MOST_LOGITS // max(weight.shape[0], 1), 1)
        losses = _ByChunks.apply(rows, weight, bias, classes, options, size)
    counted = astype(classes != ignore_index, compute_format(losses.dtype))
    return reduced("linear_cross_entropy", reshape(losses, target.shape), reduction, counted)


def _losses(x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, options: dict[str, Any]) -> Tensor:
    return cross_entropy(linear(x, weight, bias), target, reduction="none", **options)


class _ByChunks(Function):
    """A loss per row. What is kept for the gradient is the operands alone."""

    @staticmethod
    def forward(
        ctx: Context, x: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor, options: dict[str, Any], chunk: int
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, weight, target, *(() if bias is None else (bias,)))
        ctx.options, ctx.chunk = options, chunk  # type: ignore[attr-defined]
        return concat([
            _losses(x[i : i + chunk], weight, bias, target[i : i + chunk], options)
            for i in range(0, max(len(target), 1), chunk)
        ])  # fmt: skip

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, target, *rest = ctx.saved_tensors
        (g,), again = gradients, is_grad_enabled()
        options, chunk = ctx.options, ctx.chunk  # type: ignore[attr-defined]
        operands = (x, weight, rest[0] if rest else None)
        parts: list[list[Tensor]] = [[], [], []]  # gradients of x by chunks; of weight and bias the sums so far
        for i in range(0, max(len(target), 1), chunk):
            here = slice(i, i + chunk)
            with enable_grad():
                given: list[Any] = [
                    None if t is None else _leaf(t[here] if t is x else t, needed, again)
                    for t, needed in zip(operands, ctx.needs_input_grad, strict=False)
                ]
                losses = _losses(given[0], given[1], given[2], target[here], options)
            places = [p for p, t in enumerate(given) if t is not None and t.requires_grad]
            found = grad(losses, [given[p] for p in places], g[here], create_graph=again)
            for p, part in zip(places, found, strict=True):
                if p:
                    wide = astype(part, compute_format(part.dtype), copy=False)
                    parts[p] = [parts[p][0] + wide if parts[p] else wide]
                else:
                    parts[p].append(part)
        dx = concat(parts[0]) if parts[0] else None
        sums = [
            astype(p[0], t.dtype, copy=False) if p else None for p, t in zip(parts[1:], (weight, *rest), strict=False)
        ]
        return dx, *sums, *[None] * (5 - len(sums))


def _leaf(t: Tensor, is_needed: bool, again: bool) -> Tensor:
    """An operand to differentiate by: with its history where the gradient is to be differentiated again."""
    if again:
        return t
    leaf = t.detach()
    leaf.requires_grad = is_needed
    return leaf
