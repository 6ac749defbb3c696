"""NumPy's own ufunc where there is one, else the formula, one ufunc per step. Its limit: each step is a pass over memory,
on one thread."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array, compute_format
from ulpgrad.kernels import memory
from ulpgrad.kernels.elementwise import reference, spec
from ulpgrad.kernels.elementwise.coefficients import POLYNOMIALS
from ulpgrad.kernels.elementwise.table import Row
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op


def _polynomial(name: str, x: Array) -> Array:
    total = np.full_like(x, POLYNOMIALS[name][-1])
    for coefficient in POLYNOMIALS[name][-2::-1]:
        total *= x
        total += coefficient
    return total


def _upper_tail(z: Array) -> Array:
    """1 - normal_cdf(z) for z >= 0: the density times a polynomial."""
    z = np.minimum(z, 40.0)  # beyond, the tail is 0
    density = reference.normal_density(z) * math.sqrt(2 * math.pi)
    return np.asarray(density * _polynomial("TAIL_F64", (z - 5) / (z + 5)) / (z + 5))


def normal_cdf(x: Array) -> Array:
    """The distribution function of the standard normal, in float64 within."""
    wide = np.asarray(x, np.float64)
    tail = _upper_tail(np.abs(wide))
    return np.where(wide < 0, tail, 1 - tail).astype(x.dtype)


def erf(x: Array) -> Array:
    """The error function, in float64 within: a polynomial up to 1, the normal distribution's tail beyond."""
    wide = np.asarray(x, np.float64)
    size = np.abs(wide)
    near = wide + wide * _polynomial("ERF_F64", np.minimum(size, 1.0) ** 2)
    far = np.copysign(1 - 2 * _upper_tail(size * math.sqrt(2)), wide)
    return np.where(size <= 1, near, far).astype(x.dtype)


FUNCTIONS = {**reference.FUNCTIONS, "erf": erf, "normal_cdf": normal_cdf}


def _cube(x: Array) -> Any:
    out = np.square(x)
    out *= x
    return out


def _root(x: Array) -> Any:
    """sqrt, but for what powers say of -0 and -inf."""
    out = x + x.dtype.type(0)  # -0 + 0 is 0
    np.sqrt(out, out=out)
    if np.isnan(out).any():
        out[x == -np.inf] = np.inf
    return out


# By a single exponent for all values: products, a quotient and a root, in a tenth of the time of powers.
_EASY_POWERS: dict[float, Callable[[Array], Any]] = {
    1.0: np.positive, 2.0: np.square, 3.0: _cube, 0.5: _root, -1.0: np.reciprocal,
}  # fmt: skip


def _power(x: Array, y: Array) -> Any:
    if y.ndim == 0 and x.ndim and (easy := _EASY_POWERS.get(y.item())):
        return easy(x)
    return np.power(x, y)


PIECE = 1 << 14  # values whose steps lie in the cache


def _next_by_codes(x: Array, y: Array) -> Array:
    """np.nextafter, by a step from code to code where neither operand is special: whole vectors at a time, as np.nextafter has
    none."""
    if x.shape != y.shape or x.size < 1 << 12 or not (x.flags.c_contiguous and y.flags.c_contiguous):
        return np.asarray(np.nextafter(x, y))
    out = memory.empty(x.shape, x.dtype)
    code = np.dtype(f"i{x.itemsize}")
    x_all, y_all, out_all = x.reshape(-1), y.reshape(-1), out.reshape(-1)
    for i in range(0, x.size, PIECE):
        a, b, to = x_all[i : i + PIECE], y_all[i : i + PIECE], out_all[i : i + PIECE]
        rises = a < b
        plain = (rises | (a > b)) & (a != 0)  # neither NaN, nor there already, nor at zero
        steps = (rises == (a > 0)).astype(code)
        steps += steps
        steps -= 1
        np.add(a.view(code), steps, out=to.view(code))
        if not plain.all():
            rest = ~plain
            to[rest] = np.nextafter(a[rest], b[rest])
    return out


def _integer_power(x: Array, y: Array) -> Any:
    try:
        return np.power(x, y)
    except ValueError:
        raise ArgumentError("pow: integers to negative integer powers: convert to a float format first") from None


def _clip(x: Array, low: Array | None, high: Array | None) -> Any:
    return x.copy() if low is None and high is None else np.clip(x, low, high)


def function_of(row: Row, request: Request) -> Callable[..., Any]:
    """What computes a row in the formats of a request."""
    form = request.formats[0]
    assert form is not None
    if row.name == "nextafter":
        # NumPy's own for float16 gives nextafter(0, -0) as 0 instead of its second operand.
        is_numpys = form.is_native and form.itemsize > 2
        return _next_by_codes if is_numpys else lambda x, y: spec.next_code(x, y, form)
    if row.name == "clip":
        return _clip
    if row.name == "pow" and form.is_floating:
        return _power
    if row.ufunc:
        if form.is_floating:
            function: Callable[..., Any] = getattr(np, row.ufunc)
            return function
        if row.name == "pow":
            return _integer_power
        whole: Callable[..., Any] = getattr(np, row.on_integers or row.ufunc)
        return whole
    names = (*row.names(), *row.params)
    if row.choice:
        return spec.by_choice(row.choice, {
            value: reference.evaluator(formula, names, FUNCTIONS) for value, formula in row.variants.items()
        })  # fmt: skip
    return reference.evaluator(row.formula, names, FUNCTIONS)


def register(row: Row, op: Op) -> None:
    """Enter the NumPy rung of a row; it takes every format that NumPy has units for."""
    bits_are_enough = row.name in ("nextafter", "where")
    formats = [f for f in op.formats if compute_format(f) is f or bits_are_enough]

    @kernel(op, "cpu/numpy", rank=10, formats=formats, build=True)
    def build(request: Request) -> Callable[..., Any]:
        return function_of(row, request)


for _row, _op in spec.rows():
    register(_row, _op)
