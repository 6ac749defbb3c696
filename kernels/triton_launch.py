"""The door through which every Triton kernel is launched: on a GPU, in Triton's interpreter on host memory, or only compiled.

A file of kernels begins with `from ulpgrad.kernels.triton_launch import launch, tl, triton`: Triton decides when `@triton.jit`
is applied whether a kernel is interpreted, and is imported here once that is known. Kernels on NumPy arrays run in the
interpreter; set TRITON_INTERPRET=1 before their file is imported.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ulpgrad.errors import ArgumentError, DeviceError
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu, triton_interpreter as interpreter

if TYPE_CHECKING:
    triton: Any
    tl: Any


def __getattr__(name: str) -> Any:
    """`triton` and `tl`, imported when a file of kernels first asks for them."""
    if name not in ("triton", "tl"):
        raise AttributeError(name)
    if gpu.mode() == "emulated":
        os.environ["TRITON_INTERPRET"] = "1"
    import triton
    import triton.language

    globals().update(triton=triton, tl=triton.language)
    return globals()[name]


class Typed(NamedTuple):
    """An array whose elements a kernel is to see in a format that NumPy lacks."""

    array: Any
    form: Format


class Described(NamedTuple):
    """An array as blocks that a tensor memory access moves."""

    array: Any
    form: Format | None
    block: tuple[int, ...]


def typed(array: Any, form: Format) -> Any:
    """The array as an argument of this format: bfloat16 and 8-bit floats are stored as integers, which a kernel takes as they
    are where it is given the array itself."""
    return array if form.is_native else Typed(array, form)


def descriptor(array: Any, form: Format | None, block: Sequence[int]) -> Described:
    """The array as a tensor descriptor of blocks of these sizes. Its last axis is contiguous; the other strides and the address
    are multiples of 16 bytes."""
    return Described(array, form, tuple(block))


def cdiv(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def launch(kernel: Any, grid: Sequence[int], *arguments: Any, **constants: Any) -> None:
    """Run `kernel` once for each program of `grid` (one to three sizes).

    `arguments` are those known when it runs, in the kernel's order: arrays (as pointers to their first element), `typed` ones,
    `descriptor`s, ints and floats. `constants` are its constexprs and Triton's options (num_warps, num_stages, ...).
    On a GPU a grid without programs does nothing. Raises KernelError for a kernel on NumPy arrays that is not interpreted,
    ArgumentError for a bad grid, FormatError for an array that Triton has no type for, DeviceError for memory on two devices.
    """
    sizes = tuple(int(n) for n in grid)
    on_host = any(isinstance(a, np.ndarray) for a in arguments) or not any(map(_on_device, arguments))
    if not 1 <= len(sizes) <= 3 or min(sizes) < (1 if on_host else 0):
        raise ArgumentError(f"launch: grid {sizes}: expected one to three sizes of at least 1")
    if min(sizes) == 0:
        return
    if on_host or gpu.mode() == "emulated":
        interpreter.check_interpreted(kernel)
        if on_host and any(map(_on_device, arguments)):
            raise DeviceError("launch: arrays of the host and of a GPU in one launch; move them to one device")
        interpreter.run(kernel, sizes, [_on_host(a) for a in arguments], constants)
        return
    constants.setdefault("enable_fp_fusion", True)  # Triton 3.9 warns where it is left unsaid
    if gpu.mode() == "compile":
        from ulpgrad.kernels import triton_compile

        triton_compile.run(kernel, sizes, [_pointer(a) for a in arguments], constants)
    else:
        from ulpgrad.kernels import triton_device

        triton_device.run(kernel, sizes, [_pointer(a) for a in arguments], constants)


def _on_device(value: Any) -> bool:
    return gpu.is_array(value.array if isinstance(value, (Typed, Described)) else value)


def _on_host(value: Any) -> Any:
    match value:
        case Described(array, form, block):
            return _descriptor(_on_host(array if form is None else typed(array, form)), array, block)
        case Typed(array, form):
            return interpreter.StandIn(getattr(array, "host", array), form)
        case np.ndarray():
            return interpreter.host(value)
        case int() | float() | None:
            return value
    return interpreter.host(value.host)


def _pointer(value: Any) -> Any:
    from ulpgrad.kernels.triton_device import Pointer

    match value:
        case Described(array, form, block):
            return _descriptor(_pointer(array if form is None else typed(array, form)), array, block)
        case Typed(array, form):
            return Pointer(form.name, array.data.ptr)
        case int() | float() | None:
            return value
    return Pointer(value.dtype.name, value.data.ptr)


def _descriptor(base: Any, array: Any, block: tuple[int, ...]) -> Any:
    from triton.tools.tensor_descriptor import TensorDescriptor

    made = TensorDescriptor.__new__(TensorDescriptor)  # its own checks ask torch's questions of the base
    made.base, made.shape, made.block_shape = base, list(array.shape), list(block)
    made.strides = [s // array.itemsize for s in array.strides]
    made.padding, made.round_f32_to_tf32 = "zero", False
    return made


__all__ = ["cdiv", "descriptor", "launch", "tl", "triton", "typed"]
