"""NumPy, array by array, for parameters of any layout: each term of the formula is one pass over memory.

Next limit: Adam makes about twelve passes, each reading and writing a temporary as large as the parameter.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.optimizer import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.spec import Op


def _in_place(op: Op) -> None:
    """A rung that evaluates the reference's formula in the arrays' own format and writes the results into them."""

    def run(*arrays: Array | None, **params: Any) -> Any:
        targets = op.mutated(arrays)
        with np.errstate(all="ignore"):
            values = op.reference(*arrays, **params)
        for target, value in zip(targets, (values,) if len(targets) == 1 else values, strict=True):
            target[...] = value
        return targets[0] if len(targets) == 1 else targets

    kernel(op, "cpu/numpy-in-place", rank=10, formats=[float32, float64], where=spec.one_format)(run)


for _op in (spec.sgd_step, spec.adam_step, spec.adagrad_step, spec.rmsprop_step):
    _in_place(_op)
