"""Elementwise functions: each line is a function and its gradient, said once.

A rule gives the gradient of one operand from `g` (the result's gradient), the operands and the result `y`; broadcasting is
undone by the graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.differentiable import Primitive, plain_calls
from ulpgrad.errors import ArgumentError, FormatError, UlpgradError
from ulpgrad.formats import Format, bool_, float32
from ulpgrad.kernels import registry
from ulpgrad.kernels.elementwise import spec
from ulpgrad.kernels.spec import Op
from ulpgrad.ops.common import as_tensor, operands, scalar, weak_format
from ulpgrad.ops.creation import astype, zeros_like
from ulpgrad.remembered import remembered
from ulpgrad.tensor import Tensor

__all__ = [
    "abs",
    "acos",
    "acosh",
    "add",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "ceil",
    "clip",
    "conj",
    "copysign",
    "cos",
    "cosh",
    "divide",
    "equal",
    "erf",
    "exp",
    "expm1",
    "floor",
    "floor_divide",
    "gelu",
    "greater",
    "greater_equal",
    "hypot",
    "imag",
    "isfinite",
    "isinf",
    "isnan",
    "leaky_relu",
    "less",
    "less_equal",
    "log",
    "log10",
    "log1p",
    "log2",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "multiply",
    "negative",
    "nextafter",
    "not_equal",
    "positive",
    "pow",
    "real",
    "reciprocal",
    "relu",
    "remainder",
    "round",
    "sigmoid",
    "sign",
    "signbit",
    "silu",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "square",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]

Unary = Callable[[Any], Tensor]
Binary = Callable[[Any, Any], Tensor]
Rules = Mapping[str, Callable[..., Any]]

# What the short road of `_unary` and `_binary` refuses: no tensor, formats or devices not met before, a number that does not
# fit, shapes that do not broadcast, storage on two devices, and events that the caller has made errors. The full road repeats
# the call, and explains.
REFUSALS = (AttributeError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeWarning, UlpgradError)


def _named(function: Any, name: str) -> Any:
    op = spec.OPS[name]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{op.doc}\n\n{op.signature}"
    return function


def _unary(name: str, rule: Callable[..., Any] | None = None) -> Unary:
    """A function of one operand, with the short road of `_binary`."""
    primitive = Primitive(spec.OPS[name], "x", gradients={} if rule is None else {"x": rule})
    state, kept = dispatch.state, _Roads(primitive.op)

    def call(x: Any, /) -> Tensor:
        if not (state.special or plain_calls.listeners):
            try:
                if x.storage.__class__ is np.ndarray:
                    run, form = kept[x.dtype]
                else:
                    run, form = kept[x.dtype, x.storage.device.id]
                out = Tensor(run(x.storage), form)
            except REFUSALS:
                pass
            else:
                if x.requires_grad:
                    primitive.record((x,), (out,), {})
                return out
        x = as_tensor(x)
        out = primitive(x)
        kept.keep((x.dtype,), x)
        return out

    return remembered(_named(call, name))  # type: ignore[no-any-return]


def _binary(name: str, rules: Rules | None = None) -> Binary:
    """A function of two operands, with a short road: where the choice of a rung hangs on formats alone (the op has no
    `key`), it is kept per pair of formats, and a call goes straight to the rung. Whatever fails there, arrays that are no
    tensors and shapes that do not fit included, takes the full road, which promotes, checks and explains."""
    primitive = Primitive(spec.OPS[name], "x1 x2", gradients=rules)
    state, kept = dispatch.state, _Roads(primitive.op)

    def call(x1: Any, x2: Any, /) -> Tensor:
        if not (state.special or plain_calls.listeners):
            try:
                number = x2.__class__ is float or x2.__class__ is int
                other = scalar(x2, weak_format(x2, x1.dtype)) if number else x2
                a, b = x1.storage, other.storage
                if a.__class__ is b.__class__ is np.ndarray:
                    run, form = kept[x1.dtype, other.dtype]
                else:
                    index = a.device.id
                    b = dispatch.constant(b, index) if number else b
                    run, form = kept[x1.dtype, other.dtype, index, b.device.id]
                out = Tensor(run(a, b), form)
            except REFUSALS:
                pass
            else:
                if x1.requires_grad or other.requires_grad:
                    primitive.record((x1, other), (out,), {})
                return out
        a, b = operands(name, x1, x2)
        out = primitive(a, b)
        kept.keep((a.dtype, b.dtype), a, b)
        return out

    return remembered(_named(call, name))  # type: ignore[no-any-return]


class _Roads(dict[Any, tuple[Callable[..., Any], Any]]):
    """The rung that serves an op, and the result's format, per formats of the operands, and on a GPU also per numbers of their
    devices."""

    def __init__(self, op: Op) -> None:
        self.op = op
        registry.on_change(self.clear)

    def keep(self, formats: tuple[Any, ...], *tensors: Tensor) -> None:
        """Enter the choice made for a call, if any call of these formats would get the same."""
        if self.op.key is not None or dispatch.state.special or any(t.dtype.routed for t in tensors):
            return
        arrays, device = dispatch.placed(tuple(t.storage for t in tensors))
        place = () if device == "cpu" else (int(device[5:]),) * len(tensors)
        plan = dispatch.plan(self.op, formats, arrays, {}, device)
        key = (*formats, *place)
        self[key if len(key) > 1 else key[0]] = plan.run, plan.formats[0]


def _zero(g: Tensor) -> Tensor:
    return zeros_like(g)


# Arithmetic

add: Binary = _binary("add", {"x1": lambda g: g, "x2": lambda g: g})
subtract: Binary = _binary("subtract", {"x1": lambda g: g, "x2": lambda g: -g})
multiply: Binary = _binary("multiply", {"x1": lambda g, x2: g * x2, "x2": lambda g, x1: g * x1})
divide: Binary = _binary("divide", {"x1": lambda g, x2: g / x2, "x2": lambda g, y, x2: -g * y / x2})
floor_divide: Binary = _binary("floor_divide", {"x1": _zero, "x2": _zero})
remainder: Binary = _binary("remainder", {"x1": lambda g: g, "x2": lambda g, x1, x2: -g * floor_divide(x1, x2)})
pow: Binary = _binary(
    "pow",
    {
        "x1": lambda g, x1, x2: g * where(x2 == 0, scalar(0.0, g.dtype), x2 * pow(x1, where(x2 == 0, 1.0, x2 - 1.0))),
        "x2": lambda g, y, x1: g * where(x1 > 0, y * log(where(x1 > 0, x1, 1.0)), 0.0),
    },
)
maximum: Binary = _binary(
    "maximum",
    {"x1": lambda g, x1, x2: g * _share(x1 > x2, x1, x2), "x2": lambda g, x1, x2: g * _share(x2 > x1, x1, x2)},
)
minimum: Binary = _binary(
    "minimum",
    {"x1": lambda g, x1, x2: g * _share(x1 < x2, x1, x2), "x2": lambda g, x1, x2: g * _share(x2 < x1, x1, x2)},
)
atan2: Binary = _binary(
    "atan2",
    {"x1": lambda g, x1, x2: g * x2 / (x1 * x1 + x2 * x2), "x2": lambda g, x1, x2: -g * x1 / (x1 * x1 + x2 * x2)},
)
hypot: Binary = _binary("hypot", {"x1": lambda g, y, x1: g * x1 / y, "x2": lambda g, y, x2: g * x2 / y})
copysign: Binary = _binary("copysign", {"x1": lambda g, y, x1: g * sign(x1) * sign(y), "x2": _zero})
nextafter: Binary = _binary("nextafter")
logaddexp: Binary = _binary(
    "logaddexp", {"x1": lambda g, y, x1: g * exp(x1 - y), "x2": lambda g, y, x2: g * exp(x2 - y)}
)


def _share(chosen: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
    """1 where an operand was chosen, a half where both are equal, 0 elsewhere."""
    return where(chosen, 1.0, where(x1 == x2, 0.5, 0.0))


# One operand


def conj(x: Tensor, /) -> Tensor:
    """The tensor itself, since there are no complex formats; for code that is written for both."""
    return as_tensor(x)


def real(x: Tensor, /) -> Tensor:
    """The tensor itself, since there are no complex formats; for code that is written for both."""
    return as_tensor(x)


def imag(x: Tensor, /) -> Tensor:
    """Zeros, since there are no complex formats; for code that is written for both."""
    return zeros_like(as_tensor(x))


positive: Unary = _unary("positive", lambda g: g)
negative: Unary = _unary("negative", lambda g: -g)
abs: Unary = _unary("abs", lambda g, x: g * sign(x))
square: Unary = _unary("square", lambda g, x: g * x * 2.0)
sqrt: Unary = _unary("sqrt", lambda g, y: g / (y * 2.0))
reciprocal: Unary = _unary("reciprocal", lambda g, y: -g * y * y)
exp: Unary = _unary("exp", lambda g, y: g * y)
expm1: Unary = _unary("expm1", lambda g, y: g * (y + 1.0))
log: Unary = _unary("log", lambda g, x: g / x)
log1p: Unary = _unary("log1p", lambda g, x: g / (x + 1.0))
log2: Unary = _unary("log2", lambda g, x: g / (x * math.log(2)))
log10: Unary = _unary("log10", lambda g, x: g / (x * math.log(10)))
sin: Unary = _unary("sin", lambda g, x: g * cos(x))
cos: Unary = _unary("cos", lambda g, x: -g * sin(x))
tan: Unary = _unary("tan", lambda g, y: g * (y * y + 1.0))
asin: Unary = _unary("asin", lambda g, x: g / sqrt(1.0 - x * x))
acos: Unary = _unary("acos", lambda g, x: -g / sqrt(1.0 - x * x))
atan: Unary = _unary("atan", lambda g, x: g / (x * x + 1.0))
sinh: Unary = _unary("sinh", lambda g, x: g * cosh(x))
cosh: Unary = _unary("cosh", lambda g, x: g * sinh(x))
tanh: Unary = _unary("tanh", lambda g, y: _tanh_gradient(g, y))
asinh: Unary = _unary("asinh", lambda g, x: g / sqrt(x * x + 1.0))
acosh: Unary = _unary("acosh", lambda g, x: g / sqrt(x * x - 1.0))
atanh: Unary = _unary("atanh", lambda g, x: g / (1.0 - x * x))
erf: Unary = _unary("erf", lambda g, x: g * exp(-x * x) * (2 / math.sqrt(math.pi)))
floor: Unary = _unary("floor", _zero)
ceil: Unary = _unary("ceil", _zero)
trunc: Unary = _unary("trunc", _zero)
round: Unary = _unary("round", _zero)
sign: Unary = _unary("sign", _zero)
signbit: Unary = _unary("signbit")
isnan: Unary = _unary("isnan")
isinf: Unary = _unary("isinf")
isfinite: Unary = _unary("isfinite")

# Comparison, logic, bits: no gradient exists, and results are never floats

equal: Binary = _binary("equal")
not_equal: Binary = _binary("not_equal")
less: Binary = _binary("less")
less_equal: Binary = _binary("less_equal")
greater: Binary = _binary("greater")
greater_equal: Binary = _binary("greater_equal")
logical_and: Binary = _binary("logical_and")
logical_or: Binary = _binary("logical_or")
logical_xor: Binary = _binary("logical_xor")
logical_not: Unary = _unary("logical_not")
bitwise_and: Binary = _binary("bitwise_and")
bitwise_or: Binary = _binary("bitwise_or")
bitwise_xor: Binary = _binary("bitwise_xor")
bitwise_invert: Unary = _unary("bitwise_invert")
bitwise_left_shift: Binary = _binary("bitwise_left_shift")
bitwise_right_shift: Binary = _binary("bitwise_right_shift")

# Activations; their gradients are ops of their own, so that backward is one pass

_tanh_gradient: Primitive = Primitive(
    spec.OPS["tanh_gradient"],
    "g0 y0",
    gradients={"g0": lambda g, y0: _tanh_gradient(g, y0), "y0": lambda g, g0, y0: g * g0 * y0 * -2.0},
)
_sigmoid_gradient: Primitive = Primitive(
    spec.OPS["sigmoid_gradient"],
    "g0 y0",
    gradients={"g0": lambda g, y0: _sigmoid_gradient(g, y0), "y0": lambda g, g0, y0: g * g0 * (1.0 - y0 * 2.0)},
)
relu_gradient: Primitive = Primitive(
    spec.OPS["relu_gradient"], "g0 y0", gradients={"g0": lambda g, y0: relu_gradient(g, y0), "y0": _zero}
)
_leaky_relu_gradient: Primitive = Primitive(
    spec.OPS["leaky_relu_gradient"],
    "g0 x0",
    gradients={
        "g0": lambda g, x0, negative_slope: _leaky_relu_gradient(g, x0, negative_slope=negative_slope),
        "x0": _zero,
    },
)
_silu_gradient: Primitive = Primitive(spec.OPS["silu_gradient"], "g0 x0", composite=lambda g0, x0: g0 * _silu_slope(x0))
_gelu_gradient: Primitive = Primitive(
    spec.OPS["gelu_gradient"], "g0 x0", composite=lambda g0, x0, approximate: g0 * _gelu_slope(x0, approximate)
)


def _silu_slope(x: Tensor) -> Tensor:
    s = sigmoid(x)
    return s + x * s * (1.0 - s)


def _gelu_slope(x: Tensor, approximate: str) -> Tensor:
    if approximate == "none":
        return (erf(x * math.sqrt(0.5)) + 1.0) * 0.5 + x * exp(x * x * -0.5) * (1 / math.sqrt(2 * math.pi))
    t = tanh((x + x * x * x * 0.044715) * math.sqrt(2 / math.pi))
    return (t + 1.0) * 0.5 + x * (1.0 - t * t) * ((x * x * (3 * 0.044715) + 1.0) * math.sqrt(0.5 / math.pi))


sigmoid: Unary = _unary("sigmoid", lambda g, y: _sigmoid_gradient(g, y))
relu: Unary = _unary("relu", lambda g, y: relu_gradient(g, y))
silu: Unary = _unary("silu", lambda g, x: _silu_gradient(g, x))
softplus: Unary = _unary("softplus", lambda g, x: g * sigmoid(x))

_leaky_relu: Primitive = Primitive(
    spec.OPS["leaky_relu"],
    "x",
    gradients={"x": lambda g, x, negative_slope: _leaky_relu_gradient(g, x, negative_slope=negative_slope)},
)
_gelu: Primitive = Primitive(
    spec.OPS["gelu"], "x", gradients={"x": lambda g, x, approximate: _gelu_gradient(g, x, approximate=approximate)}
)


@remembered
def leaky_relu(x: Any, /, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, negative_slope * x elsewhere."""
    return _leaky_relu(as_tensor(x), negative_slope=float(negative_slope))


@remembered
def gelu(x: Any, /, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016), exact or through tanh.

    `approximate`: "none" (by erf) or "tanh". Raises ArgumentError for anything else.
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return _gelu(as_tensor(x), approximate=approximate)


# Choice

_where: Primitive = Primitive(
    spec.OPS["where"],
    "condition x1 x2",
    gradients={
        "x1": lambda g, condition: where(condition, g, scalar(0.0, g.dtype)),
        "x2": lambda g, condition: where(condition, scalar(0.0, g.dtype), g),
    },
)


@remembered
def where(condition: Any, x1: Any, x2: Any, /) -> Tensor:
    """x1 where the condition is true, x2 elsewhere; the three broadcast. The condition must be bool."""
    condition = as_tensor(condition)
    if condition.dtype is not bool_:
        raise FormatError(
            f"where: the condition must be bool, got {condition.dtype.name}; compare it first, as in x != 0"
        )
    a, b = operands("where", x1, x2)
    return _where(condition, a, b)


_clip: Primitive = Primitive(
    spec.OPS["clip"],
    "x low high",
    gradients={
        "x": lambda g, x, low, high: where(_inside(x, low, high), g, scalar(0.0, g.dtype)),
        "low": lambda g, x, low, high: where(_below(x, low, high), g, scalar(0.0, g.dtype)),
        "high": lambda g, x, high: where(x > high, g, scalar(0.0, g.dtype)),
    },
)


_clamp_gradient: Primitive = Primitive(
    spec.OPS["clamp_gradient"],
    "g0 x0",
    gradients={"g0": lambda g, x0, low, high: _clamp_gradient(g, x0, low=low, high=high), "x0": _zero},
)
_clamp: Primitive = Primitive(
    spec.OPS["clamp"],
    "x",
    gradients={"x": lambda g, x, low, high: _clamp_gradient(g, x, low=low, high=high)},
)


@lru_cache(1024)
def _bound(value: float, sign: float, form: Format) -> float:
    """A number as the value of a format that is nearest to it. (`sign` tells the zeros apart.)"""
    return float(form.exact(scalar(value, form).storage))


@remembered
def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """x limited to the interval from min to max (numbers, tensors that broadcast, or None). The result keeps x's format."""
    x = as_tensor(x)
    form = x.dtype
    if form.kind == "float" and _is_bound(min) and _is_bound(max) and not min is max is None:
        least = -math.inf if min is None else _bound(min, math.copysign(1.0, min), form)
        most = math.inf if max is None else _bound(max, math.copysign(1.0, max), form)
        out: Tensor = _clamp(x, low=least, high=most)
        return out
    if x.dtype.kind in ("affine", "block"):
        x = astype(x, float32)
    low, high = (None if v is None else astype(operands("clip", x, v)[1], x.dtype, copy=False) for v in (min, max))
    return positive(x) if low is None and high is None else _clip(x, low, high)


def _is_bound(value: Any) -> bool:
    """Whether a bound is absent or a plain number; NaN is left to what takes tensors."""
    return value is None or (value.__class__ in (int, float) and value == value)


def _inside(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    inside = isnan(x)
    inside = logical_or(inside, x >= low) if low is not None else logical_or(inside, x == x)
    return inside if high is None else logical_and(inside, logical_not(x > high))


def _below(x: Tensor, low: Tensor, high: Tensor | None) -> Tensor:
    return x < low if high is None else logical_and(x < low, logical_not(low > high))
