"""Arrays on a GPU: CuPy's, or the emulated ones of `kernels/emulated.py`, as ULPGRAD_CUDA says."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import numpy as np

from ulpgrad import settings
from ulpgrad.errors import ArgumentError

MODES = ("", "emulated", "compile")


@cache
def mode() -> str:
    """How GPU code runs: "" on a device, "emulated" on the host, "compile" not at all (kernels are compiled only)."""
    given = settings.get("ULPGRAD_CUDA")
    if given not in MODES:
        raise ArgumentError(f"ULPGRAD_CUDA={given!r}: expected nothing (the device), 'emulated' or 'compile'")
    return given


@cache
def xp() -> Any:
    """The module of array functions: `cupy`, or what stands in for it."""
    if mode():
        from ulpgrad.kernels import emulated

        return emulated.module
    import cupy

    return cupy


def is_array(value: Any) -> bool:
    """Whether it is an array on a GPU."""
    return type(value).__name__ == "ndarray" and not isinstance(value, np.ndarray) and isinstance(value, xp().ndarray)


def contiguous(array: Any) -> Any:
    """The array in C order, copied if need be."""
    return array if array.flags.c_contiguous else xp().ascontiguousarray(array)


def copied(array: Any) -> Any:
    """A new array in C order."""
    with on_device(array.device.id):
        return xp().array(array, copy=True, order="C")


def to_device(array: Any, index: int = 0) -> Any:
    """The array on the device of that number: itself if it is there, else a copy. Blocks part by part."""
    if hasattr(array, "codes"):
        return array.on(lambda part: to_device(part, index))
    with xp().cuda.Device(index):
        return xp().asarray(array if isinstance(array, np.ndarray) or array.device.id == index else to_host(array))


def to_host(array: Any) -> Any:
    """A NumPy array of the same values; what lies on the host as it is. Blocks part by part."""
    if array.__class__ is np.ndarray or not hasattr(array, "device"):
        return array.on(to_host) if hasattr(array, "codes") else array
    with xp().cuda.Device(array.device.id):
        return array.get()


def on_device(index: int) -> Any:
    """A context in which the device of that number is the current one."""
    cuda = xp().cuda
    return contextlib.nullcontext() if cuda.runtime.getDevice() == index else cuda.Device(index)


def count() -> int:
    """How many devices there are."""
    return int(xp().cuda.runtime.getDeviceCount())


def capability() -> int:
    """The compute capability that kernels are chosen for, as in 90: of the current device; where they are only compiled, the
    lowest that they are compiled for."""
    if mode() == "compile":
        from ulpgrad.kernels import triton_compile

        return min(triton_compile.architectures())
    return int(xp().cuda.Device().compute_capability)


def processors() -> int:
    """How many multiprocessors the current device has."""
    return int(xp().cuda.Device().attributes["MultiProcessorCount"])


__all__ = [
    "MODES", "capability", "contiguous", "copied", "count", "is_array", "mode", "on_device", "processors", "to_device",
    "to_host", "xp",
]  # fmt: skip
