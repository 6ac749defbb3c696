"""The door through which every Triton kernel is launched: on a GPU, in Triton's interpreter on host memory, or only compiled.

A file of kernels begins with `from ulpgrad.kernels.triton_launch import launch, tl, triton`: Triton decides when `@triton.jit`
is applied whether a kernel is interpreted, and is imported here once that is known. Kernels on NumPy arrays run in the
interpreter; set TRITON_INTERPRET=1 before their file is imported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad.errors import ArgumentError, DeviceError
from ulpgrad.kernels import capabilities, gpu, triton_interpreter as interpreter
from ulpgrad.kernels.replay import Launched
from ulpgrad.kernels.triton_arguments import Described, Typed, Unknown, descriptor, descriptor_of, typed

if TYPE_CHECKING:
    triton: Any
    tl: Any


def __getattr__(name: str) -> Any:
    """`triton` and `tl`, imported when a file of kernels first asks for them."""
    if name not in ("triton", "tl"):
        raise AttributeError(name)
    if gpu.mode() == "emulated" and not gpu.runs_ptx():
        os.environ["TRITON_INTERPRET"] = "1"
    import triton
    import triton.language

    globals().update(triton=triton, tl=triton.language)
    return globals()[name]


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
    run, heard = _device_launcher(), gpu.state.heard
    if heard is not None and 0 not in grid:
        heard.append(Launched(kernel, tuple(grid), arguments, constants))
    if run is not None and 0 in grid:
        if not any(isinstance(a, np.ndarray) for a in arguments):
            return None
    elif run is not None:
        if "enable_fp_fusion" not in constants:
            constants["enable_fp_fusion"] = True  # Triton 3.9 warns where it is left unsaid
        try:
            return run(kernel, grid, arguments, constants)
        except Unknown:
            pass  # memory of the host, or nothing that can be launched
    mode, on_device = gpu.mode(), any(map(_on_device, arguments))
    if on_device and 0 in grid:
        return None
    sizes = tuple(int(n) for n in grid)
    if not 1 <= len(sizes) <= 3 or min(sizes) < 1:
        raise ArgumentError(f"launch: grid {sizes}: expected one to three sizes of at least 1")
    if mode == "compile" and on_device:
        from ulpgrad.kernels import triton_compile

        constants.setdefault("enable_fp_fusion", True)
        return triton_compile.run(kernel, sizes, arguments, constants)
    if on_device and gpu.runs_ptx() and hasattr(kernel, "params"):
        from ulpgrad.kernels import emulated_streams
        from ulpgrad.kernels.ptx import launch as ptx

        arrays = [a.host for a in (getattr(a, "array", a) for a in arguments) if gpu.is_array(a)]
        constants.setdefault("enable_fp_fusion", True)
        return emulated_streams.record(arrays, lambda: ptx.triton(kernel, sizes, arguments, constants))
    in_gluon = on_device and is_gluon(kernel)
    if not in_gluon:
        interpreter.check_interpreted(kernel)
    if on_device and any(isinstance(a, np.ndarray) for a in arguments):
        raise DeviceError("launch: arrays of the host and of a GPU in one launch; move them to one device")
    from ulpgrad.kernels import emulated_streams

    hosts = [a.host for a in (getattr(a, "array", a) for a in arguments) if gpu.is_array(a)]
    if in_gluon:
        from ulpgrad.kernels import gluon_host

        return emulated_streams.record(hosts, lambda: gluon_host.run(kernel, sizes, arguments, constants))
    given = [_on_host(a) for a in arguments]
    if not on_device:
        return interpreter.run(kernel, sizes, given, constants)
    return emulated_streams.record(hosts, lambda: interpreter.run(kernel, sizes, given, constants))


@cache
def _device_launcher() -> Callable[..., None] | None:
    """What launches on a device, where there is one."""
    if gpu.mode() or capabilities.missing("cuda") is not None:
        return None
    from ulpgrad.kernels import triton_device

    return triton_device.run


def is_gluon(kernel: Any) -> bool:
    """Whether a kernel is written in Gluon (`triton_gluon`)."""
    asked = getattr(kernel, "is_gluon", None)
    return asked is not None and asked()


def _on_device(value: Any) -> bool:
    return gpu.is_array(value.array if isinstance(value, (Typed, Described)) else value)


def _on_host(value: Any) -> Any:
    match value:
        case Described(array, form, block, _):
            return descriptor_of(_on_host(array if form is None else typed(array, form)), array, block)
        case Typed(array, form):
            return interpreter.StandIn(getattr(array, "host", array), form)
        case np.ndarray():
            return interpreter.host(value)
        case int() | float() | None:
            return value
    return interpreter.host(value.host)


__all__ = ["cdiv", "descriptor", "launch", "tl", "triton", "typed"]
