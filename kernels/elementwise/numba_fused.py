"""One parallel loop per formula, written out and compiled for large arrays, on vectors of our own functions: operands are
read once, no intermediate is stored. Its limit: memory, or the divisions.

Where NumPy has one ufunc for an op there is nothing to fuse, and no rung.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.elementwise import spec
from ulpgrad.kernels.elementwise.table import Row
from ulpgrad.kernels.numba_source import LINE, expression, load, loop
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op


def source(row: Row) -> str:
    """The loops of a row, one for each of its formulas."""
    operands = dict.fromkeys(row.names(), "full")
    names = {name: name for name in (*operands, *row.params)}
    return "".join(
        loop(name, operands, row.params, (), [expression(formula, names)]) for name, formula in row.formulas().items()
    )


def is_small(request: Request) -> str | None:
    """Why a call is not worth compiling a loop for."""
    if spec.is_large(*request.arrays):
        return None
    return f"takes arrays from {spec.LARGE} elements, where a fused loop pays"


def register(row: Row, op: Op) -> None:
    """Enter the fused loop of a row."""
    loops = cache(lambda: load(row.name, source(row)))

    @kernel(op, "cpu/numba-fused", rank=20, formats=[float32, float64], where=is_small, contiguous=True)
    def run(*arrays: Array, **params: Any) -> Array:
        variant = f"{row.name}_{params.pop(row.choice)}" if row.choice else row.name
        fill: Callable[..., None] = getattr(loops(), variant)
        out = np.empty(arrays[0].shape, arrays[0].dtype)
        fill(*(a.reshape(-1) for a in arrays), out.reshape(-1), *params.values(), LINE)
        return out


for _row, _op in spec.rows():
    if _row.is_fused:
        register(_row, _op)
