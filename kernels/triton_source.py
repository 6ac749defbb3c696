"""Elementwise loops for a GPU, written out as Triton kernels: the table's formulas, and chains of them.

A kernel computes in one type. Along one run of values a program takes the next BLOCK of them; else it takes a tile of ROWS by
COLUMNS, in which an operand is read once for each row, each column or each value, as it varies (triton_layout.py).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ulpgrad.formats import Boolean, Float, Format, float64
from ulpgrad.kernels import generated
from ulpgrad.kernels.elementwise.expression import translate
from ulpgrad.kernels.elementwise.table import Row

# What computes a row of floats whose formula Triton has no operator or function for.
CALLS = {
    "divide": "divide(x, y)",
    "reciprocal": "divide(1.0, x)",
    "pow": "power(x, y)",
    "atan2": "atan2(x, y)",
    "nextafter": "next_code(x, y, LARGEST, NAN_CODE)",
    **{
        name: f"{name}(x)"
        for name in ("sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh")
    },
}
ON_INTEGERS = {  # NumPy's rules for integers
    **dict.fromkeys(("floor", "ceil", "trunc", "round"), "x"),
    **dict.fromkeys(("isnan", "isinf"), "x != x"),
    "isfinite": "x == x",
    "sign": "(x > 0).to(x.dtype) - (x < 0).to(x.dtype)",
    "floor_divide": "whole_quotient(x, y)",
    "remainder": "whole_remainder(x, y)",
    "pow": "whole_power(x, y)",
    "bitwise_and": "x & y",
    "bitwise_or": "x | y",
    "bitwise_xor": "x ^ y",
    "bitwise_invert": "(0 - x) - 1",  # which Triton 3.6 interprets for uint64 as well, unlike ~x
    "bitwise_left_shift": "shifted_left(x, y)",
    "bitwise_right_shift": "shifted_right(x, y)",
}
ON_BOOLS = {**ON_INTEGERS, "add": "x | y", "multiply": "x & y", "bitwise_invert": "x == 0"}  # bytes that are 0 or 1
FUNCTIONS = {"abs": "tl.abs", "sqrt": "square_root", "where": "tl.where"}  # others are called as in a formula
HEAD = """\
from ulpgrad.kernels.triton_exact import *
from ulpgrad.kernels.triton_launch import tl, triton
from ulpgrad.kernels.triton_math import *
from ulpgrad.kernels.triton_trigonometry import *
"""


def type_of(form: Format) -> str:
    """What a kernel computes in, as it converts to it; empty for what is computed as it is stored."""
    if isinstance(form, Boolean):
        return "tl.uint8"
    return "" if not isinstance(form, Float) else "tl.float64" if form is float64 else "tl.float32"


def number(value: float) -> str:
    """A number as Triton's compiler reads it."""
    if math.isfinite(value):
        return repr(value)
    return 'float("nan")' if math.isnan(value) else 'float("inf")' if value > 0 else 'float("-inf")'


def expression(row: Row, formula: str, form: Format, names: Mapping[str, str]) -> str:
    """One element of a row in a format, by one of its formulas or by what is called for it; operands and parameters under other
    names. Empty where there is neither."""
    own = CALLS if isinstance(form, Float) else ON_BOOLS if isinstance(form, Boolean) else ON_INTEGERS
    text = own.get(row.name, "")
    if not text and formula:
        text = translate(formula, number, lambda name, args: f"{FUNCTIONS.get(name, name)}({', '.join(args)})")
    return re.sub(r"\b[A-Za-z_]\w*\b", lambda word: names.get(word[0], word[0]), text)


def kernel_text(
    name: str,
    operands: Mapping[str, tuple[str, str]],
    rank: int,
    steps: Iterable[str],
    results: Sequence[str],
    params: Sequence[str] = (),
) -> str:
    """A kernel `name(results, operands, numbers of the walk, params, its constants)`.

    `operands` have the way they vary and the type they are converted to; `rank` is the walk's.
    """
    outs = [f"out{i}" for i in range(len(results))]
    numbers, body = (["n"], _run(operands)) if rank == 0 else _tile(operands, rank)
    place = "i" if rank == 0 else "row[:, None] * columns + column[None, :]"
    body += [*steps, *(f"tl.store({o} + {place}, ({r}).to({o}.dtype.element_ty), mask=inside)"
                       for o, r in zip(outs, results, strict=True))]  # fmt: skip
    constants = ["WIDE", "BLOCK"] if rank == 0 else ["WIDE", "ROWS", "COLUMNS"]
    arguments = [*outs, *(f"{o}_all" for o in operands), *numbers, *params, *(f"{c}: tl.constexpr" for c in constants)]
    return "\n".join(
        ["", "", "@triton.jit", f"def {name}({', '.join(arguments)}):", *(f"    {line}" for line in body), ""]
    )


def _converted(text: str, kind: str) -> str:
    return f"{text}.to({kind})" if kind else text


def _run(operands: Mapping[str, tuple[str, str]]) -> list[str]:
    """The lines that load operands along one run of values."""
    lines = ["first = tl.program_id(0).to(tl.int64) * BLOCK if WIDE else tl.program_id(0) * BLOCK"]
    lines += ["i = first + tl.arange(0, BLOCK)", "inside = i < n"]
    for o, (access, kind) in operands.items():
        if access == "one":
            loaded = _converted(f"tl.load({o}_all)", kind)
            lines.append(f"{o} = tl.broadcast_to({loaded}, (BLOCK,))")
        else:
            loaded = f"tl.load({o}_all + i, mask=inside, other=1)"
            lines.append(f"{o} = {_converted(loaded, kind)}")
    return lines


def _tile(operands: Mapping[str, tuple[str, str]], rank: int) -> tuple[list[str], list[str]]:
    """The numbers that a kernel over tiles takes, and the lines that load operands."""
    numbers = ["rows", "columns", *(f"size{axis}" for axis in range(1, rank))]
    lines = [
        "across = (columns + COLUMNS - 1) // COLUMNS",
        "down = tl.program_id(0).to(tl.int64) // across if WIDE else tl.program_id(0) // across",
        "row = down * ROWS + tl.arange(0, ROWS)",
        "column = (tl.program_id(0) - down * across) * COLUMNS + tl.arange(0, COLUMNS)",
        "in_row, in_column = row < rows, column < columns",
        "inside = in_row[:, None] & in_column[None, :]",
    ]
    left = "row"
    for axis in range(rank - 1, 0, -1):
        lines += [f"left{axis} = {left} // size{axis}", f"at{axis} = {left} - left{axis} * size{axis}"]
        left = f"left{axis}"
    lines.append(f"at0 = {left}")
    for o, (access, kind) in operands.items():
        if access in ("both", "row"):
            steps = [f"{o}_step{axis}" for axis in range(rank)]
            numbers += steps
            lines.append(f"{o}_row = " + " + ".join(f"at{axis} * {step}" for axis, step in enumerate(steps)))
        if access in ("both", "column"):
            numbers.append(f"{o}_step")
        loaded = {
            "both": f"tl.load({o}_all + {o}_row[:, None] + column[None, :] * {o}_step, mask=inside, other=1)",
            "row": f"tl.load({o}_all + {o}_row, mask=in_row, other=1)[:, None]",
            "column": f"tl.load({o}_all + column * {o}_step, mask=in_column, other=1)[None, :]",
            "one": f"tl.load({o}_all)",
        }[access]
        loaded = _converted(loaded, kind)
        lines.append(f"{o} = {loaded}" if access == "both" else f"{o} = tl.broadcast_to({loaded}, (ROWS, COLUMNS))")
    return numbers, lines


def load(name: str, text: str) -> Any:
    """The kernel of that name, from a file, where Triton reads its source."""
    return getattr(generated.load("triton", name, HEAD + text), name)
