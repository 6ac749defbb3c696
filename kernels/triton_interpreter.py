"""Triton kernels on host memory, in Triton's interpreter: no GPU, and no other framework.

The interpreter runs one program after the other, with NumPy: it is slow, and it sees no races, but what it computes is what
the kernel says. Its products of bfloat16 and its casts to narrow floats are not right (Triton 3.6 to 3.9): such memory
is replaced by float32 memory of the same layout with the same values, and rounded back where it was written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError, KernelError
from ulpgrad.formats import Array, Format
from ulpgrad.kernels import triton_interpreter_cost, triton_interpreter_operators


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


class StandIn:
    """float32 memory in the place of codes of a narrow float: the same offsets, the values that the codes have."""

    def __init__(self, array: Array, form: Format) -> None:
        self.form = form
        steps = [(n - 1) * s // array.itemsize for n, s in zip(array.shape, array.strides, strict=True)]
        low, high = sum(s for s in steps if s < 0), sum(s for s in steps if s > 0)
        first = array[(*(-1 if s < 0 else 0 for s in steps), ...)] if array.size else array.reshape(-1)
        count = high - low + 1 if array.size else 0
        self.codes = np.lib.stride_tricks.as_strided(first, (count,), (array.itemsize,))
        self.values = np.ascontiguousarray(form.decode(self.codes).astype(np.float32))
        self.before = self.values.copy()
        self.host = Host(self.values[-low:])

    def finish(self) -> None:
        """What was written, as codes."""
        changed = self.values.view(np.uint32) != self.before.view(np.uint32)
        if changed.any():
            self.codes[changed] = self.form.encode(self.values[changed])


def check_interpreted(kernel: Any) -> None:
    """KernelError for a kernel that is not interpreted."""
    if not hasattr(kernel, "fn") or type(kernel).__module__ != "triton.runtime.interpreter":
        raise KernelError(
            f"launch: {getattr(kernel, '__name__', kernel)} is not an interpreted Triton kernel: decorate it with "
            "@triton.jit, and set TRITON_INTERPRET=1 before its file is imported"
        )


def host(array: Array) -> Host:
    """A NumPy array as an argument; FormatError for one that Triton has no type for."""
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise FormatError(f"launch: an array of {array.dtype}: expected floats, integers or bools of NumPy's own")
    return Host(array)


@cache
def _adapt() -> None:
    """Once, before the first launch: the interpreter does not repeat itself, and loops may end at numbers known when a kernel
    runs. For these Triton 3.6 asks `int` of an array of one value, which NumPy refuses from 2.4."""
    from triton.language import core
    from triton.runtime import interpreter

    patch_tensor: Any = interpreter._patch_lang_tensor

    def patch_bounds(tensor: Any, scope: Any) -> None:
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch_bounds
    triton_interpreter_cost.adapt(interpreter, core)
    triton_interpreter_operators.adapt(interpreter, core)


def run(kernel: Any, grid: Sequence[int], arguments: Sequence[Any], constants: dict[str, Any]) -> None:
    """Run a kernel on arguments that are `Host`, `StandIn`, descriptors over these, or numbers."""
    _adapt()
    stand_ins: list[StandIn] = []

    def taken(value: Any) -> Any:
        if isinstance(value, StandIn):
            stand_ins.append(value)
            return value.host
        if isinstance(getattr(value, "base", None), StandIn):
            stand_ins.append(value.base)
            value.base = value.base.host
        return value

    with np.errstate(all="ignore"):
        kernel[tuple(grid)](*map(taken, arguments), **constants)
    for stand_in in stand_ins:
        stand_in.finish()
