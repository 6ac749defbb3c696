"""Elementwise functions: each line is a function and its gradient, said once.

A rule gives the gradient of one operand from `g` (the result's gradient), the operands and the result `y`; broadcasting is
undone by the graph. Small operands take a short road to the same rung: see `_binary`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ulpgrad import dispatch
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import bool_
from ulpgrad.kernels.elementwise import spec
from ulpgrad.ops.common import as_tensor, operands, scalar
from ulpgrad.ops.creation import astype
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

SMALL = 1024  # elements up to which a call's overhead outweighs its work


def _named(function: Any, name: str) -> Any:
    op = spec.OPS[name]
    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"{op.doc}\n\n{op.signature}"
    return function


def _unary(name: str, rule: Callable[..., Any] | None = None) -> Unary:
    primitive = Primitive(spec.OPS[name], "x", gradients={} if rule is None else {"x": rule})

    def call(x: Any, /) -> Tensor:
        return primitive(x if isinstance(x, Tensor) else as_tensor(x))  # type: ignore[no-any-return]

    return _named(call, name)  # type: ignore[no-any-return]


def _binary(name: str, rules: Rules | None = None) -> Binary:
    """A function of two operands. For small tensors the choice of a rung that takes any layout is kept per pair of
    formats, and the call goes straight to it; whatever fails there takes the full road, which explains the failure."""
    primitive = Primitive(spec.OPS[name], "x1 x2", gradients=rules)
    op, state, kept = primitive.op, dispatch.state, {}

    def call(x1: Any, x2: Any, /) -> Tensor:
        try:
            s1, s2 = x1.storage, x2.storage
            if s1.size <= SMALL and s2.size <= SMALL and not state.special:
                run, form = kept[x1.dtype, x2.dtype]
                out = Tensor(run(s1, s2), form)
                if x1.requires_grad or x2.requires_grad:
                    primitive.record((x1, x2), (out,), {})
                return out
        except Exception:
            pass
        a, b = operands(name, x1, x2)
        out = primitive(a, b)
        if a.size <= SMALL and b.size <= SMALL and not state.special and out.storage.__class__ is np.ndarray:
            plan = dispatch.plan(op, (a.dtype, b.dtype), (a.storage, b.storage), {})
            if plan.rung.name == "cpu/numpy" and not plan.widened:
                kept[a.dtype, b.dtype] = plan.run, plan.formats[0]
        return out

    return _named(call, name)  # type: ignore[no-any-return]


def _zero(g: Tensor) -> Tensor:
    return g * 0.0


# Arithmetic

add = _binary("add", {"x1": lambda g: g, "x2": lambda g: g})
subtract = _binary("subtract", {"x1": lambda g: g, "x2": lambda g: -g})
multiply = _binary("multiply", {"x1": lambda g, x2: g * x2, "x2": lambda g, x1: g * x1})
divide = _binary("divide", {"x1": lambda g, x2: g / x2, "x2": lambda g, y, x2: -g * y / x2})
floor_divide = _binary("floor_divide", {"x1": _zero, "x2": _zero})
remainder = _binary("remainder", {"x1": lambda g: g, "x2": lambda g, x1, x2: -g * floor(x1 / x2)})
pow = _binary(
    "pow",
    {
        "x1": lambda g, x1, x2: g * where(x2 == 0, scalar(0.0, g.dtype), x2 * pow(x1, where(x2 == 0, 1.0, x2 - 1.0))),
        "x2": lambda g, y, x1: g * where(x1 > 0, y * log(where(x1 > 0, x1, 1.0)), 0.0),
    },
)
maximum = _binary(
    "maximum",
    {"x1": lambda g, x1, x2: g * _share(x1 > x2, x1, x2), "x2": lambda g, x1, x2: g * _share(x2 > x1, x1, x2)},
)
minimum = _binary(
    "minimum",
    {"x1": lambda g, x1, x2: g * _share(x1 < x2, x1, x2), "x2": lambda g, x1, x2: g * _share(x2 < x1, x1, x2)},
)
atan2 = _binary(
    "atan2",
    {"x1": lambda g, x1, x2: g * x2 / (x1 * x1 + x2 * x2), "x2": lambda g, x1, x2: -g * x1 / (x1 * x1 + x2 * x2)},
)
hypot = _binary("hypot", {"x1": lambda g, y, x1: g * x1 / y, "x2": lambda g, y, x2: g * x2 / y})
copysign = _binary("copysign", {"x1": lambda g, y, x1: g * sign(x1) * sign(y), "x2": _zero})
nextafter = _binary("nextafter")
logaddexp = _binary("logaddexp", {"x1": lambda g, y, x1: g * exp(x1 - y), "x2": lambda g, y, x2: g * exp(x2 - y)})


def _share(chosen: Tensor, x1: Tensor, x2: Tensor) -> Tensor:
    """1 where an operand was chosen, a half where both are equal, 0 elsewhere."""
    return where(chosen, 1.0, where(x1 == x2, 0.5, 0.0))


# One operand

positive = _unary("positive", lambda g: g)
negative = _unary("negative", lambda g: -g)
abs = _unary("abs", lambda g, x: g * sign(x))
square = _unary("square", lambda g, x: g * x * 2.0)
sqrt = _unary("sqrt", lambda g, y: g / (y * 2.0))
reciprocal = _unary("reciprocal", lambda g, y: -g * y * y)
exp = _unary("exp", lambda g, y: g * y)
expm1 = _unary("expm1", lambda g, y: g * (y + 1.0))
log = _unary("log", lambda g, x: g / x)
log1p = _unary("log1p", lambda g, x: g / (x + 1.0))
log2 = _unary("log2", lambda g, x: g / (x * math.log(2)))
log10 = _unary("log10", lambda g, x: g / (x * math.log(10)))
sin = _unary("sin", lambda g, x: g * cos(x))
cos = _unary("cos", lambda g, x: -g * sin(x))
tan = _unary("tan", lambda g, y: g * (y * y + 1.0))
asin = _unary("asin", lambda g, x: g / sqrt(1.0 - x * x))
acos = _unary("acos", lambda g, x: -g / sqrt(1.0 - x * x))
atan = _unary("atan", lambda g, x: g / (x * x + 1.0))
sinh = _unary("sinh", lambda g, x: g * cosh(x))
cosh = _unary("cosh", lambda g, x: g * sinh(x))
tanh = _unary("tanh", lambda g, y: _tanh_gradient(g, y))
asinh = _unary("asinh", lambda g, x: g / sqrt(x * x + 1.0))
acosh = _unary("acosh", lambda g, x: g / sqrt(x * x - 1.0))
atanh = _unary("atanh", lambda g, x: g / (1.0 - x * x))
erf = _unary("erf", lambda g, x: g * exp(-x * x) * (2 / math.sqrt(math.pi)))
floor = _unary("floor", _zero)
ceil = _unary("ceil", _zero)
trunc = _unary("trunc", _zero)
round = _unary("round", _zero)
sign = _unary("sign", _zero)
signbit = _unary("signbit")
isnan = _unary("isnan")
isinf = _unary("isinf")
isfinite = _unary("isfinite")

# Comparison, logic, bits: no gradient exists, and results are never floats

equal = _binary("equal")
not_equal = _binary("not_equal")
less = _binary("less")
less_equal = _binary("less_equal")
greater = _binary("greater")
greater_equal = _binary("greater_equal")
logical_and = _binary("logical_and")
logical_or = _binary("logical_or")
logical_xor = _binary("logical_xor")
logical_not = _unary("logical_not")
bitwise_and = _binary("bitwise_and")
bitwise_or = _binary("bitwise_or")
bitwise_xor = _binary("bitwise_xor")
bitwise_invert = _unary("bitwise_invert")
bitwise_left_shift = _binary("bitwise_left_shift")
bitwise_right_shift = _binary("bitwise_right_shift")

# Activations; their gradients are ops of their own, so that backward is one pass

_tanh_gradient = Primitive(
    spec.OPS["tanh_gradient"],
    "g0 y0",
    gradients={"g0": lambda g, y0: _tanh_gradient(g, y0), "y0": lambda g, g0, y0: g * g0 * y0 * -2.0},
)
_sigmoid_gradient = Primitive(
    spec.OPS["sigmoid_gradient"],
    "g0 y0",
    gradients={"g0": lambda g, y0: _sigmoid_gradient(g, y0), "y0": lambda g, g0, y0: g * g0 * (1.0 - y0 * 2.0)},
)
_relu_gradient = Primitive(
    spec.OPS["relu_gradient"], "g0 y0", gradients={"g0": lambda g, y0: _relu_gradient(g, y0), "y0": _zero}
)
_leaky_relu_gradient = Primitive(
    spec.OPS["leaky_relu_gradient"],
    "g0 x0",
    gradients={
        "g0": lambda g, x0, negative_slope: _leaky_relu_gradient(g, x0, negative_slope=negative_slope),
        "x0": _zero,
    },
)
_silu_gradient = Primitive(spec.OPS["silu_gradient"], "g0 x0", composite=lambda g0, x0: g0 * _silu_slope(x0))
_gelu_gradient = Primitive(
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


sigmoid = _unary("sigmoid", lambda g, y: _sigmoid_gradient(g, y))
relu = _unary("relu", lambda g, y: _relu_gradient(g, y))
silu = _unary("silu", lambda g, x: _silu_gradient(g, x))
softplus = _unary("softplus", lambda g, x: g * sigmoid(x))

_leaky_relu = Primitive(
    spec.OPS["leaky_relu"],
    "x",
    gradients={"x": lambda g, x, negative_slope: _leaky_relu_gradient(g, x, negative_slope=negative_slope)},
)
_gelu = Primitive(
    spec.OPS["gelu"], "x", gradients={"x": lambda g, x, approximate: _gelu_gradient(g, x, approximate=approximate)}
)


def leaky_relu(x: Any, /, negative_slope: float = 0.01) -> Tensor:
    """x where it is positive, negative_slope * x elsewhere."""
    return _leaky_relu(as_tensor(x), negative_slope=float(negative_slope))  # type: ignore[no-any-return]


def gelu(x: Any, /, approximate: str = "none") -> Tensor:
    """x times the normal distribution function of x (Hendrycks and Gimpel 2016), exact or through tanh.

    `approximate`: "none" (by erf) or "tanh". Raises ArgumentError for anything else.
    """
    if approximate not in ("none", "tanh"):
        raise ArgumentError(f"gelu: approximate must be 'none' or 'tanh', got {approximate!r}")
    return _gelu(as_tensor(x), approximate=approximate)  # type: ignore[no-any-return]


# Choice

_where = Primitive(
    spec.OPS["where"],
    "condition x1 x2",
    gradients={
        "x1": lambda g, condition: where(condition, g, scalar(0.0, g.dtype)),
        "x2": lambda g, condition: where(condition, scalar(0.0, g.dtype), g),
    },
)


def where(condition: Any, x1: Any, x2: Any, /) -> Tensor:
    """x1 where the condition is true, x2 elsewhere; the three broadcast. The condition must be bool."""
    condition = as_tensor(condition)
    if condition.dtype is not bool_:
        raise FormatError(
            f"where: the condition must be bool, got {condition.dtype.name}; compare it first, as in x != 0"
        )
    a, b = operands("where", x1, x2)
    return _where(condition, a, b)  # type: ignore[no-any-return]


_clip = Primitive(
    spec.OPS["clip"],
    "x low high",
    gradients={
        "x": lambda g, x, low, high: where(_inside(x, low, high), g, scalar(0.0, g.dtype)),
        "low": lambda g, x, low, high: where(_below(x, low, high), g, scalar(0.0, g.dtype)),
        "high": lambda g, x, high: where(x > high, g, scalar(0.0, g.dtype)),
    },
)


def clip(x: Any, /, min: Any = None, max: Any = None) -> Tensor:
    """x limited to the interval from min to max (numbers, tensors that broadcast, or None). The result keeps x's format."""
    x = as_tensor(x)
    low, high = (None if v is None else astype(operands("clip", x, v)[1], x.dtype, copy=False) for v in (min, max))
    return positive(x) if low is None and high is None else _clip(x, low, high)


def _inside(x: Tensor, low: Tensor | None, high: Tensor | None) -> Tensor:
    inside = isnan(x)
    inside = logical_or(inside, x >= low) if low is not None else logical_or(inside, x == x)
    return inside if high is None else logical_and(inside, logical_not(x > high))


def _below(x: Tensor, low: Tensor, high: Tensor | None) -> Tensor:
    return x < low if high is None else logical_and(x < low, logical_not(low > high))
