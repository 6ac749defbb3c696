"""The formula as one Triton kernel, written out for each way the operands lie: a program takes some thousand values, 16 bytes a
thread at once, and computes narrow floats in float32. Views and broadcasting cost no copies; what is known of shapes and strides
is remembered. Its limit: memory; for few values, the launch.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Float, Format, float64
from ulpgrad.kernels.elementwise import spec
from ulpgrad.kernels.elementwise.table import Row
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.triton_launch import launch, typed
from ulpgrad.kernels.triton_layout import Walks
from ulpgrad.kernels.triton_source import expression, kernel_text, load, type_of

BY_CODE = ("where", "nextafter")  # ops that take stored codes as they are


def formula_of(row: Row, variant: str, given: tuple[bool, ...]) -> str:
    """The formula of a variant of a row; of clip, for the bounds that are given."""
    if row.name != "clip":
        return row.formulas().get(variant, "")
    _, low, high = given
    raised = "maximum(x, low)" if low else "x"
    return f"minimum({raised}, high)" if high else raised


def source(
    row: Row, variant: str, form: Format, given: tuple[bool, ...], rank: int, access: tuple[str, ...]
) -> tuple[str, str]:
    """The name of a kernel, and its text; `given`: which operands are present. Rank and access are those of a Walk."""
    kind = "" if row.name in BY_CODE else type_of(form)
    present = [name for name, is_given in zip(row.names(), given, strict=True) if is_given]
    operands = {o: (access, "" if o == "condition" else kind) for o, access in zip(present, access, strict=True)}
    names: dict[str, str] = {}
    if row.name == "nextafter":
        assert isinstance(form, Float)
        largest = form.max_code if form.inf_code is None else form.inf_code
        names = {"LARGEST": str(largest), "NAN_CODE": str(form.nan_code)}
    params = [f"{p}: tl.constexpr" if form is float64 else p for p in row.params]
    value = expression(row, formula_of(row, variant, given), form, names)
    name = f"{variant}_{(kind or type_of(form) or 'whole').removeprefix('tl.')}"
    return name, kernel_text(name, operands, rank, (), [value], params)


def function_of(row: Row, request: Request) -> Callable[..., Any]:
    """What computes a row in the formats of a request."""
    given = tuple(f is not None for f in request.formats)
    form = next(f for f in reversed(request.formats) if f is not None)
    result = request.op.result_formats(request.formats, request.params)[0]
    storage = np.dtype(result.storage)
    as_they_are = form.is_native or row.name in BY_CODE

    @cache
    def compiled(variant: str, rank: int, access: tuple[str, ...]) -> Any:
        return load(*source(row, variant, form, given, rank, access))

    is_whole = all(given)
    walks = Walks([np.dtype(f.storage).itemsize for f in request.formats if f is not None], storage.itemsize)

    def run(*arrays: Any, **params: Any) -> Any:
        operands = arrays if is_whole else [a for a in arrays if a is not None]
        walk = walks[tuple([(a.shape, a.strides) for a in operands])]
        out = walk.empty(storage)
        variant = f"{row.name}_{params.pop(row.choice)}" if row.choice else row.name
        fill = compiled(variant, walk.rank, walk.access)
        memory = (out, *operands) if as_they_are else (typed(out, result), *[typed(a, form) for a in operands])
        if params and form is not float64:
            launch(fill, walk.grid, *memory, *walk.numbers, *map(float, params.values()), **walk.constants)
        else:
            launch(fill, walk.grid, *memory, *walk.numbers, **params, **walk.constants)
        return out

    return run


def formats_of(row: Row, op: Op) -> list[Format]:
    """The formats in which a row has a kernel: numbers as the machine has them, or anything stored."""
    if row.name in BY_CODE:
        return list(op.formats)
    wide = [f for f in op.formats if not isinstance(f, Float) or f.bits >= 16]
    given = (True,) * len(row.names())
    variant = next(iter(row.formulas()), row.name)
    return [f for f in wide if expression(row, formula_of(row, variant, given), f, {})]


def register(row: Row, op: Op) -> None:
    """Enter the Triton rung of a row."""

    @kernel(op, "cuda/triton-loop", rank=40, formats=formats_of(row, op), build=True, replays=True)
    def build(request: Request) -> Callable[..., Any]:
        return function_of(row, request)


for _row, _op in spec.rows():
    register(_row, _op)
