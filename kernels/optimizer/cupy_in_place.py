"""CuPy, array by array, for parameters of any layout: each term of the formula is a kernel of its own over memory.

Next limit: Adam makes about twelve of them, each reading and writing a temporary as large as the parameter.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import float32, float64
from ulpgrad.kernels import capture
from ulpgrad.kernels.optimizer import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.spec import Op


def _in_place(op: Op) -> None:
    """A rung that evaluates the reference's formula on the GPU and writes the results into the arrays."""

    def run(*arrays: Any, **params: Any) -> Any:
        capture.refuse(
            f"{op.name} on arrays that are not contiguous", "its settings are the host's; make parameters contiguous"
        )
        targets = op.mutated(arrays)
        values = op.reference(*arrays, **params)
        for target, value in zip(targets, (values,) if len(targets) == 1 else values, strict=True):
            target[...] = value
        return targets[0] if len(targets) == 1 else targets

    kernel(op, "cuda/cupy-in-place", rank=20, formats=[float32, float64], where=spec.one_format)(run)


for _op in (spec.sgd_step, spec.adam_step, spec.adagrad_step, spec.rmsprop_step):
    _in_place(_op)
