"""The small expression language of the table, and its translation to Python and to C++.

A formula is a Python expression over operands, parameters, numbers and the functions in FUNCTIONS. All branches of
`where` are evaluated, so a formula has no control flow and every translation of it is one straight line per element.

Standard library only, with relative imports: setup.py loads it before the package is installed.
"""

from __future__ import annotations

import ast
from collections.abc import Callable

# What a formula may call. NumPy's meaning where NumPy has the name; where(condition, x, y) is the choice; normal_cdf and
# normal_density are those of the standard normal distribution.
FUNCTIONS = frozenset((
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "ceil", "copysign", "cos", "cosh", "erf", "exp", "expm1",
    "floor", "floor_divide", "hypot", "isfinite", "isinf", "isnan", "log", "log10", "log1p", "log2", "maximum", "minimum",
    "normal_cdf", "normal_density", "remainder", "rint", "sigmoid", "signbit", "sin", "sinh", "sqrt", "tan", "tanh", "trunc",
    "where",
))  # fmt: skip

_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.USub: "-",
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
    ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^",
}  # fmt: skip


def called(formula: str) -> set[str]:
    """The functions a formula calls; none for no formula."""
    if not formula:
        return set()
    nodes = ast.walk(ast.parse(formula, mode="eval"))
    return {node.func.id for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}


def translate(
    formula: str,
    number: Callable[[float], str],
    call: Callable[[str, list[str]], str],
    name: Callable[[str], str] = str,
) -> str:
    """The formula in a language with C's operators: `number` writes a constant, `call` a function call, `name` an operand."""

    def write(node: ast.AST) -> str:
        match node:
            case ast.Expression(body=body):
                return write(body)
            case ast.Constant(value=bool() | int() | float() as value):
                return number(value)
            case ast.Name(id=operand):
                return name(operand)
            case ast.UnaryOp(op=op, operand=operand):
                return f"({_OPERATORS[type(op)]}{write(operand)})"
            case ast.BinOp(left=left, op=op, right=right):
                return f"({write(left)} {_OPERATORS[type(op)]} {write(right)})"
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return f"({write(left)} {_OPERATORS[type(op)]} {write(right)})"
            case ast.Call(func=ast.Name(id=function), args=args) if function in FUNCTIONS:
                return call(function, [write(a) for a in args])
        raise SyntaxError(f"{formula!r}: {ast.unparse(node)!r} is not in the expression language")

    return write(ast.parse(formula, mode="eval"))


def to_cpp(formula: str, number: str = "T({})") -> str:
    """C++ over a type T, or over vectors of it: functions of vector_math.h, every number as `number` writes it."""

    def call(name: str, args: list[str]) -> str:
        if name == "where":
            return "({} ? {} : {})".format(*args)
        return f"vm::{name}({', '.join(args)})"

    return translate(formula, lambda value: number.format(repr(value)), call)
