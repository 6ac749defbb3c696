"""Loops over elements, written out as Python and compiled by Numba: the table's formulas, and chains of them.

A loop runs over lines of its operands, lines over threads. The formulas call numba_math.py, so that LLVM makes vectors of
the whole loop.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

from ulpgrad.kernels import generated
from ulpgrad.kernels.elementwise.expression import called, translate

LINE = 4096  # values to a line where operands do not broadcast
# What the functions of the expression language are called in a generated file, and which of them come from numba_math.
OURS = (
    "copysign", "erf", "exp", "expm1", "log", "log1p", "maximum", "minimum", "normal_cdf", "normal_density", "sigmoid",
    "tanh",
)  # fmt: skip
FUNCTIONS = {
    "abs": "_size_of",
    **{
        name: f"np.{name}"
        for name in ("ceil", "floor", "isfinite", "isinf", "isnan", "rint", "signbit", "sqrt", "trunc")
    },
    **{name: f"_{name}" for name in OURS},
}
HEAD = f"""\
import numpy as np

from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.numba_math import EXACT, INFINITY, NAN, T
from ulpgrad.kernels.numba_math import {", ".join(f"{name} as _{name}" for name in ("size_of", *OURS))}
"""


def unknown(formula: str) -> set[str]:
    """The functions of a formula that have no vectors here."""
    return called(formula) - FUNCTIONS.keys() - {"where"}


def number(value: float) -> str:
    """A constant of the format that a loop is compiled for."""
    if math.isfinite(value):
        return f"T({value!r})"
    return "NAN" if math.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"


def expression(formula: str, names: Mapping[str, str]) -> str:
    """A formula over scalars, its operands and parameters under other names."""

    def call(name: str, args: list[str]) -> str:
        if name == "where":
            return "({1} if {0} else {2})".format(*args)
        return f"{FUNCTIONS[name]}({', '.join(args)})"

    return translate(formula, number, call, names.__getitem__)


def loop(
    name: str, operands: Mapping[str, str], params: Sequence[str], steps: Iterable[str], results: Sequence[str]
) -> str:
    """A jitted function `name(operands, one array for each result, params, width)` that runs `steps` on every element.

    Operands are read in one of four ways: "full" (as large as the results), "line" (`width` values, the same in every
    line), "column" (a value for each line), "one" (a single value).
    """
    outs = [f"out{i}" for i in range(len(results))]
    full = [o for o, kind in operands.items() if kind == "full"]
    lines = [f"{o}_ = {o}_all[begin:end]" for o in (*full, *outs)]
    lines += [f"{o}_ = {o}_all" for o, kind in operands.items() if kind == "line"]
    lines += [
        f"{o} = {o}_all[{'i' if kind == 'column' else '0'}]"
        for o, kind in operands.items()
        if kind in ("column", "one")
    ]
    body = [f"{o} = {o}_[j]" for o, kind in operands.items() if kind in ("full", "line")]
    body += [*steps, *(f"{o}_[j] = {value}" for o, value in zip(outs, results, strict=True))]
    arguments = [*(f"{o}_all" for o in (*operands, *outs)), *(f"{p}_" for p in params), "width"]
    text = ["", "", "@jit(parallel=True, fastmath=EXACT)", f"def {name}({', '.join(arguments)}):"]
    text += [f"    {p} = T({p}_)" for p in params]
    text += ["    for i in prange((out0_all.size + width - 1) // width):"]
    text += ["        begin, end = i * width, min((i + 1) * width, out0_all.size)"]
    text += [f"        {line}" for line in lines]
    text += ["        for j in range(end - begin):", *(f"            {line}" for line in body), ""]
    return "\n".join(text)


def load(name: str, text: str) -> ModuleType:
    """The module of generated loops, imported from a file, since only those can be cached by Numba."""
    return generated.load("numba", name, HEAD + text)
