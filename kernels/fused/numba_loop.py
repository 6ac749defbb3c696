"""All steps in one loop, written out and compiled for large arrays: values stay in registers from step to step, and memory
is read and written once, by all threads.

Next limit: memory; compiling, which takes a second or two at the first call of a chain and is kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.elementwise.spec import LARGE
from ulpgrad.kernels.elementwise.table import ROWS
from ulpgrad.kernels.fused import spec
from ulpgrad.kernels.fused.chain import Chain
from ulpgrad.kernels.numba_source import LINE, expression, load, loop, number, unknown
from ulpgrad.kernels.registry import Request, kernel


def _where(request: Request) -> str | None:
    chain: Chain = request.params["chain"]
    if not spec.is_large(request.arrays):
        return f"takes arrays from {LARGE} elements, where compiling a loop pays"
    for step in chain.steps:
        formula = step.formula
        if not formula or unknown(formula):
            return f"{step.op} has no vectors in Numba"
    mixed = chain.mixing_bools()
    return f"{mixed} of what was compared has no loop in Numba" if mixed else None


def source(chain: Chain, kinds: tuple[str, ...]) -> str:
    """The loop of a chain whose operands are read in these ways."""
    operands = {f"v{i}": kind for i, kind in enumerate(kinds)}
    values = [*operands, *map(number, chain.constants)]
    steps = []
    for step in chain.steps:
        row = ROWS[step.op]
        names = dict(zip(row.names(), (values[s] for s in step.sources), strict=True))
        names.update((p, number(dict(step.params)[p])) for p in row.params)
        values.append(f"v{len(values)}")
        steps.append(f"{values[-1]} = {expression(step.formula, names)}")
    return loop("chain", operands, (), steps, [values[r] for r in chain.results])


def _read(a: Array, shape: tuple[int, ...]) -> tuple[str, Array]:
    """How an operand is read, and its values in one row."""
    if a.size == 1:
        return "one", a.reshape(-1)
    if a.shape != shape and a.size == a.shape[-1] == shape[-1]:
        return "line", a.reshape(-1)
    if a.shape != shape and a.shape == (*shape[:-1], 1):
        return "column", a.reshape(-1)
    return "full", np.ascontiguousarray(np.broadcast_to(a, shape)).reshape(-1)


@kernel(spec.fused, "cpu/numba-loop", rank=20, formats=[float32, float64], where=_where, contiguous=True, build=True)
def build(request: Request) -> Callable[..., Any]:
    whole: Chain = request.params["chain"]

    @cache
    def compiled(kinds: tuple[str, ...]) -> Callable[..., None]:
        fill: Callable[..., None] = load("chain", source(whole, kinds)).chain
        return fill

    def run(*arrays: Array, chain: Chain) -> Any:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
        kinds, operands = zip(*(_read(a, shape) for a in arrays), strict=True)
        width = shape[-1] if "line" in kinds or "column" in kinds else LINE
        outs = tuple(np.empty(shape, arrays[0].dtype) for _ in chain.results)
        compiled(kinds)(*operands, *(out.reshape(-1) for out in outs), width)
        return outs if len(outs) > 1 else outs[0]

    return run
