"""The formula as one C++ loop, compiled per instruction set from branch-free functions of our own, so that the compiler
vectorises all of it; 16-bit floats are widened a cacheful at a time. Any layout; its limit is memory, or the divisions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, bfloat16, bool_, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.elementwise import spec
from ulpgrad.kernels.elementwise.cpp_loops import ONLY_FLOAT32
from ulpgrad.kernels.elementwise.expression import called
from ulpgrad.kernels.elementwise.table import Row
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op


def _clip(loop: Callable[..., Array], form: Format) -> Callable[..., Array]:
    """A bound that is absent becomes infinite."""
    low, high = (form.encode(np.array(bound, np.float32)) for bound in (-np.inf, np.inf))
    return lambda x, lo, hi: loop(x, low if lo is None else lo, high if hi is None else hi)


def function_of(row: Row, request: Request) -> Callable[..., Any]:
    """The loop of a row in the formats of a request; parameters follow the operands."""
    form = request.formats[-1]
    if row.name == "where" and form is bool_:
        return np.where  # one byte each: nothing to gain
    form = request.formats[0] if form is None else form
    assert form is not None
    make = cache(lambda name: native.module().elementwise(name, form.name))
    if row.choice:
        return lambda *arrays, **params: make(f"{row.name}_{params[row.choice]}")(*arrays)
    loop: Callable[..., Array] = make(row.name)
    if row.name == "clip":
        return _clip(loop, form)
    if row.params:
        return lambda *arrays, **params: loop(*arrays, *(params[p] for p in row.params))
    return loop


def register(row: Row, op: Op) -> None:
    """Enter the native rung of a row."""
    formats: list[Format] = [float16, bfloat16, float32, float64]
    if row.name == "where":
        formats.append(bool_)
    if called(row.formula) & ONLY_FLOAT32:
        formats.remove(float64)

    @kernel(op, "cpu/native-fused", rank=50, formats=formats, build=True)
    def build(request: Request) -> Callable[..., Any]:
        return function_of(row, request)


for _row, _op in spec.rows():
    if _row.formulas():
        register(_row, _op)
