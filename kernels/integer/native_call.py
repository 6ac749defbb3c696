"""From a call to the extension: the accumulator as numbers and names, and its overflow as an error."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.integer.accumulator import Accumulator, as_accumulator
from ulpgrad.kernels.integer.spec import overflowed
from ulpgrad.kernels.registry import Request


def _settings(chosen: Accumulator) -> tuple[int, int, str, str, int]:
    return chosen.bits, chosen.shift, chosen.overflow, chosen.rounding, chosen.chunk


def _checked(op: str, chosen: Accumulator, results: tuple[Array, int, int]) -> Array:
    out, position, k = results
    if position >= 0:
        raise overflowed(op, chosen, tuple(int(i) for i in np.unravel_index(position, out.shape)), k)
    return out


def matmul(request: Request, isa: str) -> Any:
    """integer_matmul by one instruction set, in the accumulator of the request."""
    chosen = as_accumulator(request.params.get("accumulator"))
    run = native.module().integer_matmul_by(*_settings(chosen), isa)
    return run if chosen.overflow != "raise" else lambda a, b, **_: _checked("integer_matmul", chosen, run(a, b))


def conv2d(x: Array, weight: Array, isa: str, *, accumulator: Any = None, pad: int = 0, **geometry: Any) -> Array:
    """integer_conv2d by one instruction set."""
    chosen = as_accumulator(accumulator)
    results = native.module().integer_conv2d(
        x, weight, **geometry, pad=pad, bits=chosen.bits, shift=chosen.shift, overflow=chosen.overflow,
        rounding=chosen.rounding, chunk=chosen.chunk, isa=isa,
    )  # fmt: skip
    return _checked("integer_conv2d", chosen, results)
