"""Launch Triton kernels on NumPy arrays, in Triton's interpreter: no GPU, and no other framework.

Triton decides when `@triton.jit` is applied whether a kernel is interpreted: set TRITON_INTERPRET=1 before its file is imported.
The interpreter runs one program after the other, with NumPy: it is slow, and it sees no races, but what it computes is what
the kernel says. Its products of bfloat16 and its casts to 8-bit floats are not right (Triton 3.6 to 3.9): use float16 or float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError, KernelError
from ulpgrad.formats import Array


class Host:
    """What Triton asks of an argument that is memory: a NumPy array, and itself on every question of where it lies."""

    def __init__(self, array: Array) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)

    def size(self) -> tuple[int, ...]:
        return self.array.shape

    def stride(self) -> tuple[int, ...]:
        return tuple(s // self.array.itemsize for s in self.array.strides)

    def storage_offset(self) -> int:
        return 0

    # The interpreter copies storage to the host before a launch and back after it; here it is there already.

    def untyped_storage(self) -> Host:
        return self

    def cpu(self) -> Host:
        return self

    def copy_(self, other: Host) -> None:
        """Nothing to do: `other` is the same memory."""

    def new_empty(self, size: int, device: Any = None) -> Host:
        return Host(self.array)

    def set_(self, storage: Host, offset: int, size: Any, stride: Any) -> None:
        self.array = storage.array


def launch(kernel: Any, grid: Sequence[int], *arguments: Any, **constants: Any) -> None:
    """Run `kernel` once for each program of `grid` (one to three sizes). Arrays are passed as pointers to their first element.

    Raises KernelError for a kernel that is not interpreted, ArgumentError for a grid without programs, FormatError for an array
    that Triton has no type for.
    """
    if not hasattr(kernel, "fn") or type(kernel).__module__ != "triton.runtime.interpreter":
        raise KernelError(
            f"launch: {getattr(kernel, '__name__', kernel)} is not an interpreted Triton kernel: decorate it with "
            "@triton.jit, and set TRITON_INTERPRET=1 before its file is imported"
        )
    sizes = tuple(int(n) for n in grid)
    if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise ArgumentError(f"launch: grid {sizes}: expected one to three sizes of at least 1")
    kernel[sizes](*(_argument(a) for a in arguments), **constants)


def _argument(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind not in "fiub" or value.dtype.itemsize > 8:
        raise FormatError(f"launch: an array of {value.dtype}: expected floats, integers or bools of NumPy's own")
    return Host(value)


__all__ = ["launch"]
