"""Compiled for any CPU: codes are packed in pairs of 16 bits, which one instruction multiplies and adds (pmaddwd on x86-64),
and a tile of sums stays in registers. Next limit: on x86-64, 16-byte vectors."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer import native_call, spec
from ulpgrad.kernels.registry import Request, kernel


@kernel(spec.integer_matmul, "cpu/native-portable", rank=50, formats=spec.FORMATS, build=True)
def integer_matmul(request: Request) -> Any:
    return native_call.matmul(request, "portable")


@kernel(spec.integer_conv2d, "cpu/native-portable", rank=50, formats=spec.FORMATS)
def integer_conv2d(x: Array, weight: Array, **params: Any) -> Array:
    return native_call.conv2d(x, weight, "portable", **params)
