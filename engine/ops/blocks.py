"""Products of tensors in blocks, where the blocks lie along the axis that is summed over: codes and scales go to the kernels as
they are. Every other function of such tensors is one of their values in float32 (`ops.quantize.through_float32`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.differentiable import Primitive, arithmetic
from ulpgrad.formats import Block, BlockArray, Format, as_format, float32
from ulpgrad.function import Context, Function
from ulpgrad.kernels.blocks import spec
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.quantize import through_float32, to_format
from ulpgrad.tensor import Tensor

__all__: list[str] = []


def turned(blocks: BlockArray) -> BlockArray:
    """Matrices transposed: blocks lie in memory as they did."""
    last = blocks.ndim - 1
    axis = {last: last - 1, last - 1: last}.get(blocks.axis, blocks.axis)
    return BlockArray(blocks.codes.swapaxes(-1, -2), blocks.scales.swapaxes(-1, -2), axis, blocks.size_of_block)


def multiplied(a: BlockArray, b: BlockArray, forms: tuple[Block, Block], dtype: Format = float32) -> Any | None:
    """a @ b, rounded once to float32, bfloat16 or float16. None for blocks of two sizes, or not along the summed axis, and on a
    GPU for elements that its products of 16 bits do not hold."""
    if forms[0].size != forms[1].size or min(a.ndim, b.ndim) < 2 or (a.axis, b.axis) != (a.ndim - 1, b.ndim - 2):
        return None
    if a.codes.__class__ is not np.ndarray and not all(map(spec.is_narrow, forms)):
        return None
    arrays = (a.codes, a.scales, b.codes, b.scales)
    params = {"a_format": forms[0], "b_format": forms[1], "dtype": dtype}
    return dispatch.call(spec.block_matmul, tuple(as_format(part.dtype) for part in arrays), arrays, params)[0]


def product(a: Tensor, b: Tensor, transposed: bool = False, dtype: Format = float32) -> Tensor | None:
    """a @ b, or a @ b.T, rounded once to float32, bfloat16 or float16. None for tensors that are not both in blocks of one size
    along the summed axis, or where a gradient is recorded, which is one of the values."""
    if is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return None
    return _product(a, b, transposed, dtype)


def _product(a: Tensor, b: Tensor, transposed: bool, dtype: Format = float32) -> Tensor | None:
    forms = a.dtype, b.dtype
    if not (isinstance(forms[0], Block) and isinstance(forms[1], Block)):
        return None
    found = multiplied(
        a.storage, turned(b.storage) if transposed and b.ndim > 1 else b.storage, (forms[0], forms[1]), dtype
    )
    return None if found is None else Tensor(found, dtype)


class _Recorded(Function):
    """A product of codes, with the gradients of the product of values."""

    @staticmethod
    def forward(ctx: Context, primitive: Primitive, y: Tensor, *operands: Tensor) -> Tensor:
        ctx.save_for_backward(*operands)
        ctx.primitive = primitive  # type: ignore[attr-defined]
        return y

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> Any:
        primitive, operands = ctx.primitive, ctx.saved_tensors  # type: ignore[attr-defined]
        given: dict[str, Tensor] = {"g": gradients[0]}
        found: list[Tensor | None] = []
        for name, needed in zip(primitive.operands, ctx.needs_input_grad[2:], strict=False):
            if not needed:
                found.append(None)
                continue
            for other, t in zip(primitive.operands, operands, strict=False):
                if other in primitive.reads[name] and other not in given:
                    given[other] = to_format(t, float32)
            found.append(primitive.rules[name](*[given[read] for read in primitive.reads[name]]))
        return (None, None, *found)


def in_blocks(primitive: Primitive, tensors: Sequence[Tensor | None], params: dict[str, Any]) -> tuple[Tensor, ...]:
    """Arithmetic of tensors in blocks: products on their codes where they lie for it, the rest on their values in float32."""
    name, y = primitive.op.name, None
    if name in ("matmul", "linear"):
        a, b, *rest = tensors
        if a is not None and b is not None and not any(t is not None and t.dtype.routed for t in rest):
            y = _product(a, b, name == "linear")
            if y is not None and is_grad_enabled() and (a.requires_grad or b.requires_grad):
                y = _Recorded.apply(primitive, y, a, b)
    if y is None:
        return through_float32(primitive, tensors, params)
    if name == "linear":
        bias, activation = tensors[2], params.get("activation")
        y = y if bias is None else y + bias
        y = getattr(ew, activation)(y) if activation is not None else y
    return (y,)


arithmetic["block"] = in_blocks
