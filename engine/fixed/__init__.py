"""Arithmetic on fixed-point tensors, in integers, exact to the bit.

    a, b = ug.asarray([1.5, -2.25]).to("q7.8"), ug.asarray([0.5, 3.0]).to("q7.8")
    a * b                                         # q7.8, rounded to nearest even, saturating
    ug.fixed.multiply(a, b, result="full")        # q15.16, nothing lost
    ug.fixed.matmul(a, b, rounding="stochastic", result=ug.Q(3, 4))
    with ug.fixed.arithmetic(overflow="wrap"):    # operators and functions in the block
        a + b

Functions here are those of `ulpgrad` of the same names, with the options of `arithmetic` beside their own. Without options
both operands have one format Q, which the result has too; a Python number takes the tensor's format. Different formats need a
rule (`result=`), and floats are converted by hand: FormatError otherwise.

In full precision (`result="full"`) words grow: a sum has max(m) + 1 integer and max(n) fraction bits; a product m1 + m2 + 1 and
n1 + n2 (without the 1 unless both have signs); minus x and |x| one integer bit more; a sum over k terms, and a dot product,
ceil(log2 k) more. Beyond 64 bits: FormatError. Matrix products and convolutions sum exactly and round once, unless an
`accumulator` is chosen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad import differentiable, ops
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.fixed import convolution, elementwise, pooling, products, reduction, routing, tables  # noqa: F401
from ulpgrad.fixed.rules import Rule, arithmetic, current
from ulpgrad.formats import Fixed
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.tensor import Tensor

differentiable.arithmetic["fixed"] = routing.arithmetic

OPTIONS = ("result", "rounding", "overflow", "estimator", "generator", "random_bits")
CONVOLUTIONS = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
PRODUCTS = (*CONVOLUTIONS, "linear", "matmul", "tensordot", "vecdot")  # which sum in an accumulator


def _ruled(name: str) -> Callable[..., Tensor]:
    """A function of `ulpgrad` that takes the options of `arithmetic` as well."""
    function: Callable[..., Tensor] = getattr(ops, name)
    keys = (*OPTIONS, "accumulator") if name in PRODUCTS else OPTIONS

    def call(*args: Any, **options: Any) -> Tensor:
        if not any(isinstance(a, Tensor) and isinstance(a.dtype, Fixed) for a in args):
            given = ", ".join(a.dtype.name if isinstance(a, Tensor) else type(a).__name__ for a in args)
            raise FormatError(
                f"fixed.{name}: expected a fixed-point tensor, got {given}: convert one with .to(ug.Q(7, 8))"
            )
        rule = {key: options.pop(key) for key in keys if key in options}
        if "accumulator" in options:
            raise ArgumentError(f"fixed.{name}: accumulator= is for {', '.join(PRODUCTS)}")
        with arithmetic(**rule):
            return function(*args, **options)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`ulpgrad.{name}` on fixed-point tensors, with the options of `arithmetic`.\n\n{function.__doc__}"
    return call


abs = _ruled("abs")
adaptive_avg_pool2d = _ruled("adaptive_avg_pool2d")
adaptive_max_pool2d = _ruled("adaptive_max_pool2d")
add = _ruled("add")
argmax = _ruled("argmax")
argmin = _ruled("argmin")
avg_pool2d = _ruled("avg_pool2d")
bitwise_left_shift = _ruled("bitwise_left_shift")
bitwise_right_shift = _ruled("bitwise_right_shift")
ceil = _ruled("ceil")
clip = _ruled("clip")
conv1d = _ruled("conv1d")
conv2d = _ruled("conv2d")
conv3d = _ruled("conv3d")
conv_transpose1d = _ruled("conv_transpose1d")
conv_transpose2d = _ruled("conv_transpose2d")
conv_transpose3d = _ruled("conv_transpose3d")
divide = _ruled("divide")
equal = _ruled("equal")
exp = _ruled("exp")
floor = _ruled("floor")
greater = _ruled("greater")
greater_equal = _ruled("greater_equal")
less = _ruled("less")
less_equal = _ruled("less_equal")
linear = _ruled("linear")
matmul = _ruled("matmul")
max = _ruled("max")
max_pool2d = _ruled("max_pool2d")
maximum = _ruled("maximum")
mean = _ruled("mean")
min = _ruled("min")
minimum = _ruled("minimum")
multiply = _ruled("multiply")
negative = _ruled("negative")
not_equal = _ruled("not_equal")
relu = _ruled("relu")
round = _ruled("round")
sigmoid = _ruled("sigmoid")
sign = _ruled("sign")
softmax = _ruled("softmax")
square = _ruled("square")
subtract = _ruled("subtract")
sum = _ruled("sum")
tanh = _ruled("tanh")
tensordot = _ruled("tensordot")
trunc = _ruled("trunc")
vecdot = _ruled("vecdot")
where = _ruled("where")

__all__ = [
    "Accumulator",
    "Rule",
    "arithmetic",
    "current",
    "abs",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "add",
    "argmax",
    "argmin",
    "avg_pool2d",
    "bitwise_left_shift",
    "bitwise_right_shift",
    "ceil",
    "clip",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "divide",
    "equal",
    "exp",
    "floor",
    "greater",
    "greater_equal",
    "less",
    "less_equal",
    "linear",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "min",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "relu",
    "round",
    "sigmoid",
    "sign",
    "softmax",
    "square",
    "subtract",
    "sum",
    "tanh",
    "tensordot",
    "trunc",
    "vecdot",
    "where",
]
