"""The definition in C++: for each output all that its window sees, and a question at every step whether that lies on
the image. Next limit: the questions."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.conv import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.conv2d, "cpu/native-loops", rank=11, formats=[float32], where=staircase.refusal, contiguous=True)
def conv2d(x: Array, weight: Array, bias: Array | None, **params: Any) -> Any:
    return staircase.convolve("loops", x, weight, bias, params)
