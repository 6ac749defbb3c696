"""Whole rows in registers: values are read once and written once, mean and variance in two passes over registers.

A program of the gradient takes a fixed run of rows and adds what they give to weight and bias as it goes; the runs' sums are then
added in a tree: no atomics, the same bits on every run. Next limit: memory; rows longer than the registers are swept.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

from ulpgrad.kernels.norm.triton_ops import Rows, register
from ulpgrad.kernels.norm.triton_sweeps import sweep, sweep_back
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton
from ulpgrad.kernels.triton_lines import power, warps, wide

LONGEST, LONGEST_BACK = 32768, 8192
TILE = 4096
RUNS = 256  # of rows, at most: two programs for each multiprocessor of the largest GPUs


@triton.jit
def _forward(
    y, mean, rstd, x, weight, bias, rows, n,
    EPS: tl.constexpr, CENTERED: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    row, value = tl.program_id(0) * LINES + tl.arange(0, LINES), tl.arange(0, VALUES)
    at = row.to(tl.int64)[:, None] * n + value[None, :]
    there = row < rows
    inside = there[:, None] & (value < n)[None, :]
    v = wide(tl.load(x + at, mask=inside, other=0.0))
    if CENTERED:
        middle = tl.sum(v, 1) / n
        tl.store(mean + row, middle, mask=there)
        v = tl.where(inside, v - middle[:, None], 0.0)
    scale = 1 / tl.sqrt(tl.sum(v * v, 1) / n + EPS)
    tl.store(rstd + row, scale, mask=there)
    v *= scale[:, None]
    if weight is not None:
        v *= wide(tl.load(weight + value, mask=value < n, other=0.0))[None, :]
    if bias is not None:
        v += wide(tl.load(bias + value, mask=value < n, other=0.0))[None, :]
    tl.store(y + at, v.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _backward(
    dx, dweights, dbiases, g, x, weight, mean, rstd, rows, n, each,
    CENTERED: tl.constexpr, LINES: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    run, value = tl.program_id(0), tl.arange(0, VALUES)
    kind: tl.constexpr = dweights.dtype.element_ty
    scale_of = tl.full([VALUES], 1.0, kind)
    if weight is not None:
        scale_of = wide(tl.load(weight + value, mask=value < n, other=0.0))
    dw = tl.zeros([LINES, VALUES], kind)
    db = tl.zeros([LINES, VALUES], kind)
    for k in range(0, each, LINES):
        row = run * each + k + tl.arange(0, LINES)
        at = row.to(tl.int64)[:, None] * n + value[None, :]
        there = row < rows
        inside = there[:, None] & (value < n)[None, :]
        gs = wide(tl.load(g + at, mask=inside, other=0.0))
        normal = wide(tl.load(x + at, mask=inside, other=0.0))
        scale = wide(tl.load(rstd + row, mask=there, other=0.0))[:, None]
        if CENTERED:
            normal -= wide(tl.load(mean + row, mask=there, other=0.0))[:, None]
        normal *= scale
        scaled = gs * scale_of[None, :]
        left = scaled - normal * (tl.sum(scaled * normal, 1) / n)[:, None]
        if CENTERED:
            left -= (tl.sum(scaled, 1) / n)[:, None]
        tl.store(dx + at, (scale * left).to(dx.dtype.element_ty), mask=inside)
        dw += gs * normal
        if CENTERED:
            db += gs
    to = run.to(tl.int64) * n + value
    tl.store(dweights + to, tl.sum(dw, 0), mask=value < n)
    if CENTERED:
        tl.store(dbiases + to, tl.sum(db, 0), mask=value < n)


def shape_of(n: int, rows: int, registers: int = 1) -> dict[str, int]:
    """Tiles of rows x values, of so many registers each."""
    values = power(n)
    lines = min(max(TILE // registers // values, 1), power(rows))
    return {"LINES": lines, "VALUES": values, "num_warps": warps(lines * values * registers)}


def forward(rows: Rows, outs: list[Any], operands: list[Any], eps: float, is_centered: bool) -> None:
    if rows.n > LONGEST // (1 + rows.is_double):
        sweep(rows, outs, operands, eps, is_centered)
        return
    tile = shape_of(rows.n, rows.number)
    launch(_forward, (cdiv(rows.number, tile["LINES"]),), *outs, *operands, rows.number, rows.n, EPS=eps,
           CENTERED=is_centered, **tile)  # fmt: skip


def backward(rows: Rows, dx: Any, operands: list[Any], is_centered: bool) -> list[Any]:
    if rows.n > LONGEST_BACK // (1 + rows.is_double):
        return sweep_back(rows, dx, operands, is_centered)
    tile = shape_of(rows.n, rows.number, 1 + rows.is_double)
    each = cdiv(cdiv(rows.number, tile["LINES"]), RUNS) * tile["LINES"]
    runs = cdiv(rows.number, each)
    sums = [rows.sums(runs) if wanted else None for wanted in (True, is_centered)]
    launch(_backward, (runs,), dx, *sums, *operands, rows.number, rows.n, each, CENTERED=is_centered, **tile)
    return sums


register("cuda/triton-row", 60, __doc__, forward, backward)
