"""Products of affine tensors run on integer kernels: sums of code products are exact, zero points come off them as sums of codes,
and one rounding, to float32, ends it.

    sum (a - z_a)(b - z_b) = sum a b - z_b sum a - z_a sum b + k z_a z_b

That holds while scales do not change along the axis that is summed; elsewhere, and for all other functions, an affine tensor
is its values in float32. Gradients are those of the values.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad import autograd, dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.device import module_of
from ulpgrad.differentiable import Primitive, arithmetic
from ulpgrad.formats import Affine, Array, as_format, float32, float64
from ulpgrad.function import Context, Function
from ulpgrad.kernels.spec import Op
from ulpgrad.ops import elementwise as ew
from ulpgrad.ops.quantize import beside_codes, through_float32, to_format
from ulpgrad.tensor import Tensor

__all__: list[str] = []

LARGEST_PRODUCT = 255 * 255
Params = dict[str, Any]
Tensors = Sequence[Tensor | None]


def _run(name: str, *arrays: Array, **params: Any) -> Array:
    from ulpgrad.kernels.integer import spec  # late: few programs have affine tensors

    op: Op = getattr(spec, name)
    out: Array = dispatch.call(op, tuple(as_format(a.dtype) for a in arrays), arrays, params)[0]
    return out


def _accumulator(terms: int) -> str:
    return "int32" if terms * LARGEST_PRODUCT < 2**31 else "int64"


def _affine(t: Tensor | None) -> Affine | None:
    return t.dtype if t is not None and isinstance(t.dtype, Affine) else None


def _per_tensor(form: Affine | None, axis: int | None = None) -> bool:
    """Whether an operand is affine, with one scale or a scale for each position on that axis."""
    return form is not None and (form.axis is None or form.axis == axis)


def _rounded(sums: Array, scale: Array, bias: Tensor | None = None, axis: int = -1) -> Tensor:
    values = sums * beside_codes(scale, sums)
    if bias is not None:
        exact = to_format(bias.detach(), float64).storage
        values += exact.reshape([-1 if i == axis % values.ndim else 1 for i in range(values.ndim)])
    return Tensor(dispatch.convert(values, float64, float32), float32)


def _product(a: Array, b: Array, zero_a: Array, zero_b: Array) -> Array:
    """Sums over (a - zero_a)(b - zero_b) of matrices of codes; zero points broadcast over rows of a and columns of b."""
    sums = _run("integer_matmul", a, b, accumulator=_accumulator(a.shape[-1])).astype(np.int64)
    if zero_b.any():
        sums -= beside_codes(zero_b, b) * a.sum(-1, keepdims=True, dtype=np.int64)
    if zero_a.any():
        sums -= beside_codes(zero_a, a) * b.sum(-2, keepdims=True, dtype=np.int64)
        sums += beside_codes(a.shape[-1] * zero_a * zero_b, a)
    return sums


def _matmul(a: Tensor, b: Tensor) -> Tensor | None:
    form_a, form_b = _affine(a), _affine(b)
    if not (form_a and form_b and _per_tensor(form_a, a.ndim - 2) and _per_tensor(form_b, b.ndim - 1)):
        return None
    zero_a, scale_a = (form_a.along(v, a.ndim, a.shape) for v in (form_a.zero_point, form_a.scale))
    zero_b, scale_b = (form_b.along(v, b.ndim, b.shape) for v in (form_b.zero_point, form_b.scale))
    return _rounded(_product(a.storage, b.storage, zero_a, zero_b), scale_a * scale_b)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, activation: str | None) -> Tensor | None:
    form, weight_form = _affine(x), _affine(weight)
    if not (form and weight_form and _per_tensor(form) and _per_tensor(weight_form, 0)):
        return None
    rows = x.storage.reshape(-1, x.shape[-1])
    sums = _product(rows, weight.storage.T, form.zero_point, weight_form.zero_point)
    y = _rounded(sums.reshape(*x.shape[:-1], weight.shape[0]), form.scale * weight_form.scale, bias)
    return y if activation is None else getattr(ew, activation)(y)


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, **settings: Any) -> Tensor | None:
    form, weight_form = _affine(x), _affine(weight)
    if not (form and weight_form and _per_tensor(form) and _per_tensor(weight_form, 0)):
        return None
    codes, kernel, zero, xp = x.storage, weight.storage, int(form.zero_point), module_of(x.storage)
    (top, left), groups = settings["padding"], settings["groups"]
    terms = math.prod(kernel.shape[1:])
    run = functools.partial(_run, "integer_conv2d", accumulator=_accumulator(terms))
    if zero and (top or left):  # padding stands for 0, whose code is the zero point
        codes = xp.pad(codes, ((0, 0), (0, 0), (top, top), (left, left)), constant_values=zero)
        settings = {**settings, "padding": (0, 0)}
    sums = run(codes, kernel, **settings).astype(np.int64)
    weight_zero = np.broadcast_to(weight_form.zero_point, kernel.shape[:1])[:, None, None]
    there = beside_codes(weight_zero, kernel)
    if zero:
        sums -= zero * (kernel.sum((1, 2, 3), dtype=np.int64)[:, None, None] - terms * there)
    if weight_zero.any():
        ones = xp.ones((groups, *kernel.shape[1:]), np.int8)
        sums -= there * run(codes, ones, **settings).repeat(kernel.shape[0] // groups, axis=1)
    scale = form.scale * np.broadcast_to(weight_form.scale, kernel.shape[:1])
    return _rounded(sums, scale[:, None, None], bias, axis=1)


RULES: dict[str, Callable[..., Tensor | None]] = {"matmul": _matmul, "linear": _linear, "conv2d": _conv2d}


class _IntegerProduct(Function):
    """The result of integer kernels, with the gradient of the values in float32."""

    @staticmethod
    def forward(ctx: Context, primitive: Primitive, params: Params, result: Tensor, *tensors: Tensor | None) -> Tensor:
        ctx.save_for_backward(*[t for t in tensors if t is not None])
        ctx.call = primitive, params, [t is None for t in tensors]  # type: ignore[attr-defined]
        return result

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> Any:
        primitive, params, absent = ctx.call  # type: ignore[attr-defined]
        saved, again = iter(ctx.saved_tensors), is_grad_enabled()
        with autograd.enable_grad():
            values = [None if gone else _value(next(saved), again) for gone in absent]
            y = primitive(*values, **params)
        asked = [v for v, needed in zip(values, ctx.needs_input_grad[3:], strict=True) if v is not None and needed]
        found = iter(autograd.grad(y, asked, gradients[0], create_graph=again))
        return (None, None, None, *[next(found) if needed else None for needed in ctx.needs_input_grad[3:]])


def _value(t: Tensor, again: bool) -> Tensor:
    """An operand in float32, as a place to differentiate at; still a function of the operand where `again` asks for it."""
    value = to_format(t if again else t.detach(), float32) if t.dtype.routed else t if again else t.detach()
    return value if value.requires_grad else value.detach().requires_grad_()


def _route(primitive: Primitive, tensors: Tensors, params: Params) -> tuple[Tensor, ...]:
    """Products by integers where the formats allow it; everything else in float32."""
    rule = RULES.get(primitive.op.name)
    if rule is None or primitive.op.check is None:
        return through_float32(primitive, tensors, params)
    primitive.op.check(*[None if t is None else t.storage for t in tensors], **params)
    result = rule(*tensors, **params)
    if result is None:
        return through_float32(primitive, tensors, params)
    if is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return (_IntegerProduct.apply(primitive, params, result, *tensors),)
    return (result,)


arithmetic["affine"] = _route
