"""Writes the C++ of the table: a loop per formula, and the polynomials. setup.py calls `generate` before it compiles.

Standard library only, with relative imports: setup.py loads it before the package is installed.
"""

from __future__ import annotations

import ast
from pathlib import Path

from .coefficients import POLYNOMIALS, quarter_turns
from .expression import called, to_cpp
from .table import ROWS, Row

# What vector_math.h and its neighbours have for vectors of float alone.
ONLY_FLOAT32 = frozenset((
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cos", "cosh", "log10", "log2", "sin", "sinh", "tan",
))  # fmt: skip

_LOOP = """\
// {formula}
template <typename T>
static void run_{name}(const void* const* in, void* out, int64_t n, [[maybe_unused]] const double* params) {{
{declarations}
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {{
{loads}
    out_[i] = {expression};
  }}
{repair}}}
"""
_VECTORS = """\
// {formula}
template <typename S, typename T = Wide<S>>
static void run_{name}(const void* const* in, void* out, int64_t n, [[maybe_unused]] const double* params) {{
{declarations}
  map<S, {exact}>(n, out_, [&](const auto& at) {{
{loads}
    return {expression};
  }});
}}
"""
# What they have for vectors. A loop of anything else runs over values, and the compiler makes its vectors.
ON_VECTORS = ONLY_FLOAT32 | {
    "abs", "ceil", "copysign", "erf", "exp", "expm1", "floor", "log", "log1p", "maximum", "minimum", "normal_cdf",
    "normal_density", "rint", "sigmoid", "sqrt", "tanh", "trunc", "where",
}  # fmt: skip
CHOOSING = {"abs", "ceil", "copysign", "floor", "maximum", "minimum", "rint", "trunc", "where"}
_REPAIR = "  for (int64_t i = 0; i < n; ++i)\n    if (out_[i] != out_[i]) out_[i] = vm::far_{name}(x_[i], y_[i]);\n"
REPAIRED = frozenset({"remainder"})  # what the vector loop leaves as NaN is computed again, one by one


def _is_bool(operand: str) -> bool:
    return operand == "condition"


def _on_vectors(row: Row, formula: str) -> bool:
    return called(formula) <= ON_VECTORS and row.gives != "bool" and not any(map(_is_bool, row.names()))


def _is_exact(row: Row, formula: str) -> bool:
    """Whether results are values of the operands' format, however few digits that has: operands, their whole parts, 0 or 1."""
    nodes = list(ast.walk(ast.parse(formula, mode="eval")))
    numbers = [node.value for node in nodes if isinstance(node, ast.Constant)]
    computes = row.params or any(isinstance(node, ast.BinOp) for node in nodes)
    return not computes and called(formula) <= CHOOSING and all(value in (0, 1) for value in numbers)


def _vectors(row: Row, name: str, formula: str) -> str:
    names = row.names()
    declarations = [f"  const S* const {o}_ = static_cast<const S*>(in[{i}]);" for i, o in enumerate(names)]
    declarations += [f"  const Vec<T> {p} = broadcast(T(params[{i}]));" for i, p in enumerate(row.params)]
    declarations.append("  S* const out_ = static_cast<S*>(out);")
    return _VECTORS.format(
        formula=formula,
        name=name,
        exact=str(_is_exact(row, formula)).lower(),
        declarations="\n".join(declarations),
        loads="\n".join(f"    const Vec<T> {o} = at({o}_);" for o in names),
        expression=to_cpp(formula, "broadcast(T({}))"),
    )


def _values(row: Row, name: str, formula: str) -> str:
    names = row.names()
    kinds = ["uint8_t" if _is_bool(o) else "T" for o in names]
    declarations = [
        f"  const {kind}* __restrict {o}_ = static_cast<const {kind}*>(in[{i}]);"
        for i, (o, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    declarations += [f"  const T {p} = T(params[{i}]);" for i, p in enumerate(row.params)]
    result = "bool" if row.gives == "bool" else "T"
    declarations.append(f"  {result}* __restrict out_ = static_cast<{result}*>(out);")
    # A condition is read as a number: a load of type bool keeps GCC 12 from vectorising the loop.
    loads = [f"    const {'int' if _is_bool(o) else 'T'} {o} = {o}_[i];" for o in names]
    return _LOOP.format(
        formula=formula,
        name=name,
        declarations="\n".join(declarations),
        loads="\n".join(loads),
        expression=to_cpp(formula),
        repair=_REPAIR.format(name=name) if name in REPAIRED else "",
    )


def _loop(row: Row, name: str, formula: str) -> str:
    return (_vectors if _on_vectors(row, formula) else _values)(row, name, formula)


def _entry(row: Row, name: str, formula: str) -> str:
    operands = "".join("b" if _is_bool(o) else "t" for o in row.names())
    double = "nullptr" if called(formula) & ONLY_FLOAT32 else f"run_{name}<double>"
    gives_bool = "true" if row.gives == "bool" else "false"
    halves = (f"run_{name}<Bfloat16>", f"run_{name}<Float16>") if _on_vectors(row, formula) else ("nullptr", "nullptr")
    loops = ", ".join((f"run_{name}<float>", double, *halves))
    return f'    {{"{name}", "{operands}", {gives_bool}, {len(row.params)}, {int(row.flops)}, {loops}}},'


def loops() -> str:
    """The loops of all formulas, and the table of them."""
    formulas = [(row, name, formula) for row in ROWS.values() for name, formula in row.formulas().items()]
    entries = "\n".join(_entry(*f) for f in formulas)
    return f"{chr(10).join(_loop(*f) for f in formulas)}\nstatic constexpr ElementwiseKernel kernels[] = {{\n{entries}\n}};\n"


def polynomials() -> str:
    """The coefficients, and the table for large angles, as constants, float for those whose name says so."""
    lines = ["#pragma once", "namespace ulpgrad::polynomial {"]
    for name, values in (*POLYNOMIALS.items(), *quarter_turns().items()):
        kind, mark = ("float", "f") if name.endswith("F32") else ("double", "")
        listed = ", ".join(f"{value!r}{mark}" for value in values)
        lines.append(f"static constexpr {kind} {name}[] = {{{listed}}};")
    return "\n".join([*lines, "}", ""])


def generate(folder: Path) -> None:
    """Write both headers into a folder, leaving alone what has not changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in (("elementwise_loops.h", loops()), ("elementwise_polynomials.h", polynomials())):
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
