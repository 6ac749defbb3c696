"""Products of tensors in blocks, where the blocks lie along the axis that is summed over: codes and scales go to the kernels as
they are. Every other function of such tensors is one of their values in float32 (`ops.quantize.through_float32`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad import dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.differentiable import Primitive, arithmetic
from ulpgrad.formats import Block, Format, as_format, float32
from ulpgrad.kernels.blocks import spec
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.quantize import through_float32
from ulpgrad.tensor import Tensor

__all__: list[str] = []


def product(a: Tensor, b: Tensor, transposed: bool = False, dtype: Format = float32) -> Tensor | None:
    """a @ b, or a @ b.T, rounded once to float32, bfloat16 or float16. None for tensors that are not both in blocks of one size
    along the summed axis, or where a gradient is recorded, which is one of the values."""
    forms = a.dtype, b.dtype
    if not (isinstance(forms[0], Block) and isinstance(forms[1], Block)) or forms[0].size != forms[1].size:
        return None
    if is_grad_enabled() and (a.requires_grad or b.requires_grad):
        return None
    x: Any = a.storage
    y: Any = b.storage
    if min(a.ndim, b.ndim) < 2 or x.axis != a.ndim - 1 or y.axis != b.ndim - (1 if transposed else 2):
        return None
    right = (y.codes.swapaxes(-1, -2), y.scales.swapaxes(-1, -2)) if transposed else (y.codes, y.scales)
    arrays = (x.codes, x.scales, *right)
    params = {"a_format": forms[0], "b_format": forms[1], "dtype": dtype}
    storage, formats = dispatch.call(spec.block_matmul, tuple(as_format(part.dtype) for part in arrays), arrays, params)
    return Tensor(storage, formats[0])


def in_blocks(primitive: Primitive, tensors: Sequence[Tensor | None], params: dict[str, Any]) -> tuple[Tensor, ...]:
    """Arithmetic of tensors in blocks: products on their codes where they lie for it, the rest on their values in float32."""
    name, y = primitive.op.name, None
    if name in ("matmul", "linear"):
        a, b, *rest = tensors
        if a is not None and b is not None and not any(t is not None and t.dtype.routed for t in rest):
            y = product(a, b, name == "linear")
    if y is None:
        return through_float32(primitive, tensors, params)
    if name == "linear":
        bias, activation = tensors[2], params.get("activation")
        y = y if bias is None else y + bias
        y = getattr(ew, activation)(y) if activation is not None else y
    return (y,)


arithmetic["block"] = in_blocks
