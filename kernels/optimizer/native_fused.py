"""C++: the same single pass, on vectors, with no cost worth naming per call; `multi` takes a list of parameters at once.

Next limit: memory bandwidth; Adam moves 28 bytes per float32 value for 14 operations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.optimizer import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.spec import Op


def step_of(op: Op) -> Callable[..., None]:
    """The C++ function of an optimizer op: takes a list of (p, g, state..., scaling) and the op's parameters."""
    function: Callable[..., None] = getattr(native.module(), op.name)
    return function


def _fused(op: Op) -> None:
    def run(*arrays: Array | None, **params: Any) -> Any:
        step_of(op)((arrays,), **params)
        targets = op.mutated(arrays)
        return targets[0] if len(targets) == 1 else targets

    kernel(op, "cpu/native-fused", rank=50, formats=[float32, float64], where=spec.flat_in_one_format)(run)


for _op in (spec.sgd_step, spec.adam_step, spec.adagrad_step, spec.rmsprop_step):
    _fused(_op)
