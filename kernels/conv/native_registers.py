"""A strip of one output's row stays in registers until all its weights have been added. Next limit: each multiply-add loads
its own vector of pixels."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.conv import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.conv2d, "cpu/native-registers", rank=32, formats=[float32], where=staircase.refusal, contiguous=True)
def conv2d(x: Array, weight: Array, bias: Array | None, **params: Any) -> Any:
    return staircase.convolve("registers", x, weight, bias, params)
