"""One program for a row of any length, piece after piece: three sweeps for mean, variance and result. The gradients of weight and
bias are a kernel of their own, which runs down columns.

Next limit: values are read three times, from the cache if it holds the rows of all programs that run at once.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.kernels.norm.triton_ops import Rows, register
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton
from ulpgrad.kernels.triton_lines import power, warps, wide

PIECE = 4096
RUN, COLUMNS = 64, 32  # rows and columns of a tile of the parameters' gradients


@triton.jit
def _forward(
    y, mean, rstd, x, weight, bias, n,
    EPS: tl.constexpr, CENTERED: tl.constexpr, KIND: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    row, piece = tl.program_id(0).to(tl.int64), tl.arange(0, VALUES)
    middle = tl.sum(tl.zeros([1], KIND), 0)
    if CENTERED:
        total = tl.zeros([VALUES], KIND)
        for start in range(0, n, VALUES):
            value = start + piece
            total += wide(tl.load(x + row * n + value, mask=value < n, other=0.0))
        middle = tl.sum(total, 0) / n
        tl.store(mean + row, middle)
    squares = tl.zeros([VALUES], KIND)
    for start in range(0, n, VALUES):
        value = start + piece
        v = wide(tl.load(x + row * n + value, mask=value < n, other=0.0))
        v = tl.where(value < n, v - middle, 0.0)
        squares += v * v
    scale = 1 / tl.sqrt(tl.sum(squares, 0) / n + EPS)
    tl.store(rstd + row, scale)
    for start in range(0, n, VALUES):
        value = start + piece
        v = (wide(tl.load(x + row * n + value, mask=value < n, other=0.0)) - middle) * scale
        if weight is not None:
            v *= wide(tl.load(weight + value, mask=value < n, other=0.0))
        if bias is not None:
            v += wide(tl.load(bias + value, mask=value < n, other=0.0))
        tl.store(y + row * n + value, v.to(y.dtype.element_ty), mask=value < n)


@triton.jit
def _operands(g, x, weight, row, value, n, middle, scale):
    """The gradient times the weight, and the normalised value."""
    inside = value < n
    scaled = wide(tl.load(g + row * n + value, mask=inside, other=0.0))
    if weight is not None:
        scaled *= wide(tl.load(weight + value, mask=inside, other=0.0))
    return scaled, (wide(tl.load(x + row * n + value, mask=inside, other=0.0)) - middle) * scale


@triton.jit
def _backward(
    dx, g, x, weight, mean, rstd, n, CENTERED: tl.constexpr, KIND: tl.constexpr, VALUES: tl.constexpr
):  # fmt: skip
    row, piece = tl.program_id(0).to(tl.int64), tl.arange(0, VALUES)
    scale = wide(tl.load(rstd + row))
    middle = wide(tl.load(mean + row)) if CENTERED else tl.sum(tl.zeros([1], KIND), 0)
    total = tl.zeros([VALUES], KIND)
    along = tl.zeros([VALUES], KIND)
    for start in range(0, n, VALUES):
        scaled, normal = _operands(g, x, weight, row, start + piece, n, middle, scale)
        along += scaled * normal
        total += scaled
    inner = tl.sum(along, 0) / n
    outer = tl.sum(total, 0) / n
    for start in range(0, n, VALUES):
        value = start + piece
        scaled, normal = _operands(g, x, weight, row, value, n, middle, scale)
        left = scaled - normal * inner
        if CENTERED:
            left -= outer
        tl.store(dx + row * n + value, (scale * left).to(dx.dtype.element_ty), mask=value < n)


@triton.jit
def _columns(
    dweights, dbiases, g, x, mean, rstd, rows, n, CENTERED: tl.constexpr, RUN: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    across = tl.cdiv(n, COLUMNS)
    run = tl.program_id(0) // across
    row, value = run * RUN + tl.arange(0, RUN), tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    there = row < rows
    at = row.to(tl.int64)[:, None] * n + value[None, :]
    inside = there[:, None] & (value < n)[None, :]
    gs = wide(tl.load(g + at, mask=inside, other=0.0))
    normal = wide(tl.load(x + at, mask=inside, other=0.0))
    if CENTERED:
        normal -= wide(tl.load(mean + row, mask=there, other=0.0))[:, None]
    normal *= wide(tl.load(rstd + row, mask=there, other=0.0))[:, None]
    to = run.to(tl.int64) * n + value
    tl.store(dweights + to, tl.sum(gs * normal, 0), mask=value < n)
    if CENTERED:
        tl.store(dbiases + to, tl.sum(gs, 0), mask=value < n)


def _constants(rows: Rows) -> dict[str, Any]:
    values = power(min(rows.n, PIECE))
    return {"KIND": tl.float64 if rows.is_double else tl.float32, "VALUES": values, "num_warps": warps(values)}


def sweep(rows: Rows, outs: list[Any], operands: list[Any], eps: float, is_centered: bool) -> None:
    launch(_forward, (rows.number,), *outs, *operands, rows.n, EPS=eps, CENTERED=is_centered, **_constants(rows))


def sweep_back(rows: Rows, dx: Any, operands: list[Any], is_centered: bool) -> list[Any]:
    g, x, weight, mean, rstd = operands
    launch(_backward, (rows.number,), dx, g, x, weight, mean, rstd, rows.n, CENTERED=is_centered, **_constants(rows))
    runs = cdiv(rows.number, RUN)
    sums = [rows.sums(runs) if wanted else None for wanted in (True, is_centered)]
    launch(_columns, (cdiv(rows.n, COLUMNS) * runs,), *sums, g, x, mean, rstd, rows.number, rows.n, CENTERED=is_centered,
           RUN=RUN, COLUMNS=COLUMNS, num_warps=8)  # fmt: skip
    return sums


register("cuda/triton-sweeps", 40, __doc__, sweep, sweep_back)
