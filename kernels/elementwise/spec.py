"""Elementwise ops: each row of the table becomes an Op whose reference evaluates the row's formula in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import ALL, FLOATS, INTEGERS, REALS, Array, Format, bool_, compute_format
from ulpgrad.formats.promotion import result_format
from ulpgrad.kernels.elementwise import reference
from ulpgrad.kernels.elementwise.samples import samples
from ulpgrad.kernels.elementwise.table import ROWS, Row
from ulpgrad.kernels.spec import Op, promoted

TAKES: dict[str, Sequence[Format]] = {
    "float": FLOATS,
    "real": REALS,
    "integer": INTEGERS,
    "bits": INTEGERS.plus(bool_),
    "any": ALL,
}
LARGE = 1 << 15  # elements from which compiling a fused loop pays


class NextAfter(Op):
    """`nextafter` steps from code to code of the format itself, so its reference works on codes, not on values."""

    def run_reference(self, arrays: Any, formats: Any, params: Any) -> Any:
        return next_code(arrays[0], arrays[1], formats[0])


def next_code(x: Array, y: Array, form: Format) -> Array:
    """The code of a format that follows x towards y. Codes of one sign are ordered as integers are."""
    a, b = form.decode(x), form.decode(y)
    bits = np.dtype(f"u{form.itemsize}")
    sign = bits.type(1 << (form.bits - 1))
    codes, target = np.broadcast_arrays(x.view(bits), y.view(bits))
    away = (a < b) == (a > 0)
    stepped = np.where(away, codes + bits.type(1), codes - bits.type(1))
    from_zero = np.where(b < 0, sign | bits.type(1), bits.type(1))
    stepped = np.where(a == b, target, np.where(a == 0, from_zero, stepped))
    nan = form.encode(np.array(np.nan, np.float32)).view(bits)
    return np.where(np.isnan(a) | np.isnan(b), nan, stepped).astype(bits).view(form.storage)


def evaluate(row: Row) -> Callable[..., Any]:
    """The reference of a row: NumPy's function where it has one, else the formula."""
    if row.name == "clip":
        return _clip
    if row.name == "pow":  # one exponent for all is another road in NumPy, which has sqrt(-inf) for (-inf) ** 0.5
        return lambda x, y: np.power(*(np.array(a) for a in np.broadcast_arrays(x, y)))
    if row.ufunc:
        function = getattr(np, row.ufunc)
        if row.on_integers:
            whole = getattr(np, row.on_integers)
            return lambda x: (function if x.dtype.kind == "f" else whole)(x)
        return lambda *arrays: function(*arrays)
    names = (*row.names(), *row.params)
    if row.choice:
        return by_choice(row.choice, {
            value: reference.evaluator(formula, names, reference.FUNCTIONS) for value, formula in row.variants.items()
        })  # fmt: skip
    return reference.evaluator(row.formula, names, reference.FUNCTIONS)


def _clip(x: Array, low: Array | None, high: Array | None) -> Any:
    if low is not None:
        x = np.maximum(x, low)
    return np.positive(x) if high is None else np.minimum(x, high)


def by_choice(choice: str, functions: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    return lambda *arrays, **params: functions[params[choice]](*arrays)


def magnitude(row: Row) -> Callable[..., Any] | None:
    """What the row's ULPs are measured at, where that is not the result."""
    if not row.magnitude:
        return None
    names = (*row.names(), *row.params)
    if isinstance(row.magnitude, str):
        return reference.evaluator(row.magnitude, names, reference.FUNCTIONS)
    return by_choice(row.choice, {
        value: reference.evaluator(formula, names, reference.FUNCTIONS) for value, formula in row.magnitude.items()
    })  # fmt: skip


def check_broadcast(name: str, *arrays: Array | None, **_: Any) -> None:
    """ShapeError unless the operands' shapes broadcast."""
    shapes = [a.shape for a in arrays if a is not None]
    if all(shape == shapes[0] for shape in shapes):
        return
    width = max(map(len, shapes))
    for axis in range(1, width + 1):
        sizes = {shape[-axis] for shape in shapes if len(shape) >= axis} - {1}
        if len(sizes) > 1:
            given = " and ".join(map(str, shapes))
            found = " and ".join(map(str, sorted(sizes)))
            raise ShapeError(f"{name}: shapes {given} do not broadcast: axis {-axis} is {found}")


def check_choice(row: Row, *arrays: Array | None, **params: Any) -> None:
    """ArgumentError for a variant that does not exist; ShapeError for shapes that do not broadcast."""
    if params[row.choice] not in row.variants:
        names = " or ".join(map(repr, row.variants))
        raise ArgumentError(f"{row.name}: {row.choice}={params[row.choice]!r}: expected {names}")
    if len(arrays) > 1:
        check_broadcast(row.name, *arrays)


def check_same_shape(row: Row, x: Array, y: Array, **params: Any) -> None:
    """ShapeError unless both shapes are one: a gradient has the shape of what it is the gradient of."""
    if x.shape != y.shape:
        names = " and ".join(row.names())
        raise ShapeError(f"{row.name}: {names} differ in shape: {x.shape} != {y.shape}")
    if row.choice:
        check_choice(row, x, **params)


def is_large(x: Array, *_: Any, **__: Any) -> bool:
    return x.size >= LARGE


def _check(row: Row) -> Callable[..., None] | None:
    if row.name.endswith("_gradient"):
        return partial(check_same_shape, row)
    if row.choice:
        return partial(check_choice, row)
    return partial(check_broadcast, row.name) if len(row.names()) > 1 else None


def _result(row: Row) -> Callable[..., Format]:
    if row.gives == "bool":
        return lambda *_, **__: bool_
    if row.name == "where":
        return lambda condition, x, y, **_: result_format(x, y)
    return promoted


def make_op(row: Row) -> Op:
    """The Op of a row."""
    kind = NextAfter if row.name == "nextafter" else Op
    arguments = ", ".join(name.replace("?", " | None") for name in row.operands.split())
    keywords = [f"{name}: float" for name in row.params] + [f"{row.choice}: str"] * bool(row.choice)
    half = 0.5 if row.ulps == 0.5 else 1.0  # formats that are computed wider and rounded
    return kind(
        row.name,
        f"({arguments}{', *, ' if keywords else ''}{', '.join(keywords)}) -> {'bool' if row.gives == 'bool' else 'same'}",
        evaluate(row),
        doc=row.formula or "; ".join(f"{k}: {v}" for k, v in row.variants.items()) or f"numpy.{row.ufunc}",
        check=_check(row),
        result=_result(row),
        formats=TAKES[row.takes],
        promote=(1, 2) if row.name == "where" else True,
        flops=lambda *arrays, **_: row.flops * np.broadcast(*(a for a in arrays if a is not None)).size,
        samples=lambda: samples(row),
        ulps={form: row.ulps if compute_format(form) is form else half for form in FLOATS},
        magnitude=magnitude(row),
        key=is_large if row.is_fused else None,
        family="elementwise",
    )


OPS: dict[str, Op] = {name: make_op(row) for name, row in ROWS.items()}


def rows() -> Iterator[tuple[Row, Op]]:
    """Each row with its op, for the rungs to be stamped out from."""
    for name, row in ROWS.items():
        yield row, OPS[name]
