"""All steps in one Triton kernel, written out for the chain and for the way its operands lie: values stay in registers from step
to step, and memory is read and written once. 16-bit floats are widened as they are read and rounded as they are written.

Next limit: memory; compiling, which takes a second at the first call of a chain and is kept on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.formats import Format, bfloat16, compute_format, float16, float32, float64
from ulpgrad.kernels.elementwise.table import ROWS
from ulpgrad.kernels.fused import spec
from ulpgrad.kernels.fused.chain import Chain, Step
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import launch, typed
from ulpgrad.kernels.triton_layout import Walks
from ulpgrad.kernels.triton_source import expression, kernel_text, load, number, type_of


def _where(request: Request) -> str | None:
    chain: Chain = request.params["chain"]
    if any(step.op == "nextafter" for step in chain.steps):
        return "nextafter steps in stored codes, which values on the way do not have"
    is_bool = [False] * (chain.operands + len(chain.constants))
    for step in chain.steps:
        row = ROWS[step.op]
        if (
            any(is_bool[s] for s in step.sources)
            and not row.name.startswith("logical_")
            and not _chooses(step, is_bool)
        ):
            return f"{row.name} of what was compared has no kernel in Triton"
        is_bool.append(row.gives == "bool")
    return None


def _chooses(step: Step, is_bool: list[bool]) -> bool:
    return step.op == "where" and not any(is_bool[s] for s in step.sources[1:])


def source(chain: Chain, form: Format, rank: int, access: tuple[str, ...]) -> str:
    """The kernel of a chain whose operands are read in these ways."""
    kind = type_of(form)
    block = "(BLOCK,)" if rank == 0 else "(ROWS, COLUMNS)"
    values = [f"v{i}" for i in range(chain.operands)]
    operands = {v: (way, kind) for v, way in zip(values, access, strict=True)}
    steps = []
    for value in chain.constants:
        values.append(f"v{len(values)}")
        steps.append(f"{values[-1]} = tl.full({block}, {number(value)}, {kind})")
    for step in chain.steps:
        row, params = ROWS[step.op], dict(step.params)
        names = dict(zip(row.names(), (values[s] for s in step.sources), strict=True))
        names.update((p, number(params[p])) for p in row.params)
        if row.name == "where":
            names["condition"] = f"({names['condition']} != 0)"
        values.append(f"v{len(values)}")
        steps.append(f"{values[-1]} = {expression(row, step.formula, compute_format(form), names)}")
    return kernel_text("chain", operands, rank, steps, [values[r] for r in chain.results])


@kernel(
    spec.fused, "cuda/triton-chain", rank=60, formats=[float16, bfloat16, float32, float64], where=_where, build=True
)
def build(request: Request) -> Callable[..., Any]:
    whole: Chain = request.params["chain"]
    form = request.formats[0]
    assert form is not None
    storage = np.dtype(form.storage)
    walks = Walks([storage.itemsize] * whole.operands, storage.itemsize)

    @cache
    def compiled(rank: int, access: tuple[str, ...]) -> Any:
        return load("chain", source(whole, form, rank, access))

    def run(*arrays: Any, chain: Chain) -> Any:
        walk = walks[tuple([(a.shape, a.strides) for a in arrays])]
        outs = tuple(walk.empty(storage) for _ in chain.results)
        memory = (typed(a, form) for a in (*outs, *arrays))
        launch(compiled(walk.rank, walk.access), walk.grid, *memory, *walk.numbers, **walk.constants)
        return outs if len(outs) > 1 else outs[0]

    return run
