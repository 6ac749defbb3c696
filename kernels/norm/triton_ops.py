"""Layer norm and RMS norm with their gradients as one Triton rung: memory of results, and sums of the parameters' gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import Format, bfloat16, compute_format, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.norm import spec
from ulpgrad.kernels.reduction.triton_tree import reduce_lines
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.statistics import beside
from ulpgrad.kernels.triton_launch import typed

FORMATS = [float16, bfloat16, float32, float64]


class Rows(NamedTuple):
    """`number` rows of `n` values."""

    number: int
    n: int
    is_double: bool

    def sums(self, runs: int) -> Any:
        """Memory for sums down the columns, of so many runs of rows."""
        return gpu.empty((runs, self.n), np.float64 if self.is_double else np.float32)


def rows_of(x: Any, form: Format) -> Rows:
    return Rows(math.prod(x.shape[:-1]), x.shape[-1], form is float64)


def argument(array: Any, form: Format | None) -> Any:
    return None if array is None or form is None else typed(array, form)


def register(
    name: str, rank: int, document: str | None, forward: Callable[..., None], backward: Callable[..., Any]
) -> None:
    """The four ops as a rung. `forward(rows, (y, mean, rstd), (x, weight, bias), eps, is_centered)` writes what comes first;
    `backward(rows, dx, (g, x, weight, mean, rstd), is_centered)` writes dx and gives sums for weight and bias."""
    idea = (document or "").split("\n\n")[0].replace("\n", " ")
    kernel(spec.layer_norm, name, rank=rank, formats=FORMATS, contiguous=True, build=True, idea=idea)(
        lambda request: _forward(request, forward, True)
    )
    kernel(spec.rms_norm, name, rank=rank, formats=FORMATS, contiguous=True, build=True, idea=idea)(
        lambda request: _forward(request, forward, False)
    )
    for op, kept in ((spec.layer_norm_gradient, (3, 4)), (spec.rms_norm_gradient, (3,))):
        _register_gradient(op, name, rank, idea, backward, beside((0, 1, 2), kept))


def _register_gradient(op: Op, name: str, rank: int, idea: str, backward: Callable[..., Any], where: Any) -> None:
    kernel(op, name, rank=rank, formats=FORMATS, contiguous=True, build=True, idea=idea, where=where)(
        lambda request: _backward(request, backward, op is spec.layer_norm_gradient)
    )


def _forward(request: Request, forward: Callable[..., None], is_centered: bool) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None
    kept = compute_format(form).storage

    def run(x: Any, weight: Any, bias: Any = None, *, eps: float) -> tuple[Any, ...]:
        xp, shape = gpu.xp(), x.shape[:-1]
        y = xp.empty(x.shape, x.dtype)
        if not x.size:  # the mean of nothing
            statistics = [xp.full(shape, np.nan, kept) for _ in range(1 + is_centered)]
            return y, *statistics
        mean, rstd = xp.empty(shape, kept) if is_centered else None, xp.empty(shape, kept)
        operands = [argument(a, form) for a in (x, weight, bias)]
        forward(rows_of(x, form), [typed(y, form), mean, rstd], operands, float(eps), is_centered)
        return (y, mean, rstd) if is_centered else (y, rstd)

    return run


def _backward(request: Request, backward: Callable[..., Any], is_centered: bool) -> Callable[..., Any]:
    form = request.formats[1]
    assert form is not None

    def run(g: Any, x: Any, weight: Any, *statistics: Any) -> tuple[Any, ...]:
        xp, n = gpu.xp(), x.shape[-1]
        dx = xp.empty(x.shape, x.dtype)
        if not x.size:
            return dx, *[xp.zeros(n, x.dtype) for _ in range(1 + is_centered)]
        given = [argument(a, f) for a, f in zip((g, x, weight, *statistics), request.formats, strict=True)]
        operands = given if is_centered else [*given[:3], None, given[3]]
        sums = backward(rows_of(x, form), typed(dx, form), operands, is_centered)
        return dx, *[_total(part, form) for part in sums if part is not None]

    return run


def _total(part: Any, form: Format) -> Any:
    """Sums of runs of rows [runs, n], added up and rounded once."""
    out = gpu.empty(part.shape[1], form.storage)
    reduce_lines("sum", part, compute_format(form), (1, *part.shape), out, form)
    return out
