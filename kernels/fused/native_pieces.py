"""Pieces of 512 values go through all steps while they lie in the first cache, each step the op's own C++ loop: memory is read
and written once, and nothing has to be compiled. 16-bit floats are widened and rounded in the pieces.

Next limit: loads and stores of the first cache between steps; memory, for short chains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.formats import Array, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.copy.into import copied
from ulpgrad.kernels.elementwise.cpp_loops import ONLY_FLOAT32
from ulpgrad.kernels.elementwise.expression import called
from ulpgrad.kernels.elementwise.table import ROWS
from ulpgrad.kernels.fused import spec
from ulpgrad.kernels.fused.chain import Chain, Step
from ulpgrad.kernels.registry import Request, kernel


def loop_of(step: Step) -> tuple[str, list[int], list[float]]:
    """The C++ loop of a step, what it reads, and its numbers."""
    row, params = ROWS[step.op], dict(step.params)
    name = f"{row.name}_{params[row.choice]}" if row.choice else row.name
    return name, list(step.sources), [float(params[p]) for p in row.params]


def _where(request: Request) -> str | None:
    chain: Chain = request.params["chain"]
    for step in chain.steps:
        row = ROWS[step.op]
        formula = row.formulas().get(loop_of(step)[0])
        if formula is None:
            return f"{row.name} has no loop in C++"
        if request.formats[0] is float64 and called(formula) & ONLY_FLOAT32:
            return f"{row.name} has no loop in C++ for float64"
    mixed = chain.mixing_bools()
    return f"{mixed} of what was compared has no loop in C++" if mixed else None


def _periodic(a: Array, shape: tuple[int, ...]) -> Array:
    """A contiguous array whose values, repeated, are those of `a` broadcast to the shape."""
    core = a.shape
    while core and core[0] == 1:
        core = core[1:]
    if core != shape[len(shape) - len(core) :]:
        return copied(np.broadcast_to(a, shape))
    return a if a.flags.c_contiguous and a.flags.aligned else copied(a)


@kernel(
    spec.fused, "cpu/native-pieces", rank=50, formats=[float16, bfloat16, float32, float64], where=_where, build=True
)
def build(request: Request) -> Callable[..., Any]:
    chain: Chain = request.params["chain"]
    form = request.formats[0]
    assert form is not None
    loops = native.module().ElementwiseChain(
        chain.operands, list(chain.constants), list(map(loop_of, chain.steps)), list(chain.results), form.name
    )

    def run(*arrays: Array, chain: Chain) -> Any:
        shape = arrays[0].shape
        if any(a.shape != shape or not a.flags.c_contiguous or not a.flags.aligned for a in arrays):
            shape = np.broadcast_shapes(*(a.shape for a in arrays))
            arrays = tuple(_periodic(a, shape) for a in arrays)
        found = loops(*arrays, shape=shape)
        return found if len(found) > 1 else found[0]

    return run
