"""The table of elementwise ops: one row each, from which everything else follows.

Standard library only: setup.py reads it to generate the C++ loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Row(NamedTuple):
    """One op.

    - `operands`: their names. A name that ends in "?" may be absent.
    - `formula`: the value of one element, in the language of expression.py; empty for ops that only NumPy has.
    - `ufunc`: NumPy's own function for it, where there is one.
    - `takes`: "float", "real" (integers and floats), "integer", "bits" (integers and bool) or "any".
    - `gives`: "same" (the operands' format) or "bool".
    - `params`: names of real-valued parameters. `variants`: formula by value of the parameter `choice`.
    - `on_integers`: ufunc for integers, where it is another one.
    - `ulps`: allowed error; `magnitude`: formula of what those ULPs are measured at, where terms cancel (default: the
      result). `flops`: arithmetic per element, a transcendental function counted as 10.
    """

    name: str
    operands: str
    formula: str = ""
    ufunc: str = ""
    takes: str = "float"
    gives: str = "same"
    params: tuple[str, ...] = ()
    choice: str = ""
    variants: Mapping[str, str] = MappingProxyType({})
    on_integers: str = ""
    ulps: float = 0.5
    magnitude: str | Mapping[str, str] = ""
    flops: float = 1

    def names(self) -> tuple[str, ...]:
        """Operand names without their marks."""
        return tuple(name.rstrip("?") for name in self.operands.split())

    def formulas(self) -> dict[str, str]:
        """Formula by kernel name: the op's, or one for each variant (`gelu_tanh`)."""
        if self.variants:
            return {f"{self.name}_{value}": formula for value, formula in self.variants.items()}
        return {self.name: self.formula} if self.formula else {}

    @property
    def is_fused(self) -> bool:
        """Whether NumPy would need several passes over memory where a loop of our own needs one."""
        return not self.ufunc and bool(self.formulas())


_RAISED = "where(x < low, low, x)"  # clamp is clip with numbers for bounds


def _arithmetic() -> list[Row]:
    return [
        Row("abs", "x", "abs(x)", "absolute", takes="real"),
        Row("negative", "x", "-x", "negative", takes="real"),
        Row("positive", "x", "x", "positive", takes="real"),
        Row("square", "x", "x * x", "square", takes="real"),
        Row("sign", "x", "where(x > 0, 1, where(x < 0, -1, where(x == 0, 0, x)))", "sign", takes="real"),
        Row("sqrt", "x", "sqrt(x)", "sqrt"),
        Row("reciprocal", "x", "1 / x", "reciprocal"),
        Row("floor", "x", "floor(x)", "floor", takes="real", on_integers="positive"),
        Row("ceil", "x", "ceil(x)", "ceil", takes="real", on_integers="positive"),
        Row("trunc", "x", "trunc(x)", "trunc", takes="real", on_integers="positive"),
        Row("round", "x", "rint(x)", "rint", takes="real", on_integers="positive"),
        Row("add", "x y", "x + y", "add", takes="any"),
        Row("subtract", "x y", "x - y", "subtract", takes="real"),
        Row("multiply", "x y", "x * y", "multiply", takes="any"),
        Row("divide", "x y", "x / y", "divide"),
        Row("floor_divide", "x y", "floor_divide(x, y)", "floor_divide", takes="real", ulps=1, flops=8),
        Row("remainder", "x y", "remainder(x, y)", "remainder", takes="real", flops=8),
        Row("pow", "x y", "", "power", takes="real", ulps=4, flops=20),
        Row("maximum", "x y", "maximum(x, y)", "maximum", takes="any"),
        Row("minimum", "x y", "minimum(x, y)", "minimum", takes="any"),
        Row("copysign", "x y", "copysign(x, y)", "copysign"),
        Row("hypot", "x y", "hypot(x, y)", "hypot", ulps=2, flops=8),
        Row("clip", "x low? high?", "minimum(maximum(x, low), high)", "clip", takes="real", flops=2),
        Row("clamp", "x", f"where({_RAISED} > high, high, {_RAISED})", params=("low", "high"), flops=2),
        Row("clamp_gradient", "g x", "where(x < low, 0, where(x > high, 0, g))", params=("low", "high"), flops=2),
    ]


def _transcendental() -> list[Row]:
    def function(name: str, ufunc: str) -> Row:
        return Row(name, "x", f"{name}(x)", ufunc, ulps=4, flops=10)

    return [
        *(function(name, name) for name in ("exp", "expm1", "log", "log1p", "log2", "log10", "tanh")),
        *(function(name, name) for name in ("sin", "cos", "tan", "sinh", "cosh")),
        *(function(name, name.replace("a", "arc", 1)) for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")),
        Row("erf", "x", "erf(x)", ulps=2, flops=20),
        Row("atan2", "x y", "atan2(x, y)", "arctan2", ulps=4, flops=10),
        Row("logaddexp", "x y", "where(x == y, x + 0.6931471805599453, maximum(x, y) + log1p(exp(-abs(x - y))))",
            "logaddexp", ulps=4, magnitude="abs(maximum(x, y)) + 0.7", flops=24),
    ]  # fmt: skip


# Below float32's smallest normal number a factor has few digits left: what is multiplied by it has no more.
_TINY = "1e-38"

# gelu's tanh form: with u = sqrt(8 / pi) (x + 0.044715 x^3), x (1 + tanh(u / 2)) / 2 = x sigmoid(u), which cancels nothing
# for negative x. Far out the result inherits the rounding of u, magnified by |u|. The slope of u stays finite, so that
# it may meet a sigmoid of 0.
_U = "(1.5957691216057308 * x * (1 + 0.044715 * x * x))"
_SLOPE = "(1.5957691216057308 * (1 + 0.134145 * minimum(x * x, 1e30)))"
_MAGNIFIED = f"(1 + minimum(abs({_U}), 200))"


def _activations() -> list[Row]:
    return [
        Row("sigmoid", "x", "sigmoid(x)", ulps=3, flops=12),
        Row("relu", "x", "where(x <= 0, 0, x)", takes="real"),
        Row("leaky_relu", "x", "where(x <= 0, negative_slope * x, x)", params=("negative_slope",), ulps=1, flops=2),
        Row("gelu", "x", choice="approximate", flops=24, ulps=8,
            variants={"none": "x * normal_cdf(x)", "tanh": f"x * sigmoid({_U})"},
            magnitude={"none": f"x * maximum(normal_cdf(x), {_TINY})",
                       "tanh": f"x * maximum(sigmoid({_U}), {_TINY}) * {_MAGNIFIED}"}),
        Row("silu", "x", "x * sigmoid(x)", ulps=4, flops=13, magnitude=f"x * maximum(sigmoid(x), {_TINY})"),
        Row("softplus", "x", "maximum(x, 0) + log1p(exp(-abs(x)))", ulps=4, flops=23),
        Row("relu_gradient", "g y", "where(y <= 0, 0, g)"),
        Row("leaky_relu_gradient", "g x", "where(x <= 0, negative_slope * g, g)", params=("negative_slope",), ulps=1, flops=2),
        Row("gelu_gradient", "g x", choice="approximate", flops=40, ulps=8,
            variants={"none": "g * (normal_cdf(x) + x * normal_density(x))",
                      "tanh": f"g * (sigmoid({_U}) + x * sigmoid({_U}) * sigmoid(-{_U}) * {_SLOPE})"},
            magnitude={"none": f"g * (normal_cdf(x) + abs(x) * maximum(normal_density(x), {_TINY}) + {_TINY})",
                       "tanh": f"g * (sigmoid({_U}) + abs(x) * sigmoid({_U}) * sigmoid(-{_U}) * {_SLOPE}"
                               f" + {_TINY} * abs(x * {_SLOPE}) + {_TINY}) * {_MAGNIFIED}"}),
        Row("silu_gradient", "g x", "g * (sigmoid(x) * (1 + x * sigmoid(-x)))", flops=28, ulps=6,
            magnitude=f"g * maximum(sigmoid(x), {_TINY}) * (1 + abs(x) * sigmoid(-x))"),
        Row("tanh_gradient", "g y", "g * (1 - y * y)", flops=3, ulps=2, magnitude="g * (1 + y * y)"),
        Row("sigmoid_gradient", "g y", "g * (y * (1 - y))", flops=3, ulps=3),
    ]  # fmt: skip


def _logic() -> list[Row]:
    def to_bool(name: str, operands: str, formula: str, ufunc: str = "") -> Row:
        return Row(name, operands, formula, ufunc or name, "any", "bool")

    def bits(name: str, operands: str = "x y", ufunc: str = "", takes: str = "bits") -> Row:
        return Row(name, operands, "", ufunc or name, takes)

    return [
        to_bool("isnan", "x", "isnan(x)"),
        to_bool("isinf", "x", "isinf(x)"),
        to_bool("isfinite", "x", "isfinite(x)"),
        Row("signbit", "x", "signbit(x)", "signbit", gives="bool"),
        to_bool("logical_not", "x", "x == 0"),
        to_bool("logical_and", "x y", "(x != 0) & (y != 0)"),
        to_bool("logical_or", "x y", "(x != 0) | (y != 0)"),
        to_bool("logical_xor", "x y", "(x != 0) ^ (y != 0)"),
        to_bool("equal", "x y", "x == y"),
        to_bool("not_equal", "x y", "x != y"),
        to_bool("less", "x y", "x < y"),
        to_bool("less_equal", "x y", "x <= y"),
        to_bool("greater", "x y", "x > y"),
        to_bool("greater_equal", "x y", "x >= y"),
        bits("bitwise_and"),
        bits("bitwise_or"),
        bits("bitwise_xor"),
        bits("bitwise_invert", "x", "invert"),
        bits("bitwise_left_shift", ufunc="left_shift", takes="integer"),
        bits("bitwise_right_shift", ufunc="right_shift", takes="integer"),
        Row("where", "condition x y", "where(condition, x, y)", "where", "any"),
        Row("nextafter", "x y", "", "nextafter", ulps=1),
    ]


ROWS: dict[str, Row] = {
    row.name: row for rows in (_arithmetic(), _transcendental(), _activations(), _logic()) for row in rows
}
