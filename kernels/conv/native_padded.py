"""The zeros are written once around a copy of the image, so that windows ask nothing. Next limit: each sum waits for the
one before, and vectors stand idle."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.conv import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.conv2d, "cpu/native-padded", rank=12, formats=[float32], where=staircase.refusal, contiguous=True)
def conv2d(x: Array, weight: Array, bias: Array | None, **params: Any) -> Any:
    return staircase.convolve("padded", x, weight, bias, params)
