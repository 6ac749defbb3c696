"""Devices: where a tensor's storage lies. The storage itself knows (a NumPy array is on the CPU, a CuPy array on its GPU)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad.errors import DeviceError, DeviceMemoryError
from ulpgrad.kernels import gpu


@dataclass(frozen=True)
class Device:
    """A place for storage: `type` is "cpu" or "cuda", `index` numbers the GPUs."""

    type: str
    index: int = 0

    def __str__(self) -> str:
        return self.type if self.type == "cpu" else f"{self.type}:{self.index}"

    def __repr__(self) -> str:
        return f"device({str(self)!r})"


CPU = Device("cpu")


def as_device(given: Any = None) -> Device:
    """A Device from a Device, "cpu", "cuda" (the current GPU), "cuda:1" or None (the CPU). DeviceError if it is not there."""
    if given is None or given == "cpu" or given == CPU:
        return CPU
    if isinstance(given, Device):
        given = str(given)
    kind, _, index = str(given).partition(":")
    if kind != "cuda" or not (index == "" or index.isdecimal()):
        raise DeviceError(f"unknown device {given!r}: expected 'cpu', 'cuda' or 'cuda:N'")
    from ulpgrad.kernels import capabilities

    reason = capabilities.missing("cuda")
    if reason:
        raise DeviceError(f"device {given!r} cannot be used: {reason}; `ulpgrad doctor` says more")
    number = int(index or gpu.xp().cuda.runtime.getDevice())
    if number >= gpu.count():
        raise DeviceError(f"device {given!r}: there are only {gpu.count()}, numbered from 0")
    return Device("cuda", number)


def device_of(storage: Any) -> Device:
    """The device an array lies on."""
    storage = getattr(storage, "codes", storage)  # of blocks
    if isinstance(storage, np.ndarray):
        return CPU
    return Device("cuda", int(storage.device.id))


_HERE = contextlib.nullcontext()


def module_of(storage: Any) -> Any:
    """The module whose functions take the array: NumPy, or CuPy."""
    return np if isinstance(storage, np.ndarray) else gpu.xp()


def as_array(found: Any) -> Any:
    """A result as an array: NumPy gives numbers where there are no axes."""
    return np.asarray(found) if isinstance(found, np.generic) else found


def current(device: Device) -> Any:
    """A context in which GPU code runs on the device; nothing for the CPU."""
    return _HERE if device.type == "cpu" else gpu.on_device(device.index)


def beside(storage: Any) -> Any:
    """A context in which GPU code runs where the array lies."""
    return _HERE if storage.__class__ is np.ndarray else current(device_of(storage))


def elsewhere(storage: Any) -> Device | None:
    """What `device=` has to be for a new tensor beside the array: nothing on the CPU, so that such calls are remembered."""
    return None if storage.__class__ is np.ndarray or device_of(storage) == CPU else device_of(storage)


def moved_to(storage: Any, device: Device) -> Any:
    """The array on a device: itself if it is there already."""
    if device.type == "cpu":
        return gpu.to_host(storage)
    return retried(device.index, gpu.to_device, storage, device.index)


def retried(index: int, run: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """run(...) on a GPU. Where its memory does not do, what the pool keeps is given back and `run` is tried once more."""
    short = gpu.xp().cuda.memory.OutOfMemoryError
    with gpu.on_device(index):
        try:
            return run(*args, **options)
        except short:
            gpu.xp().get_default_memory_pool().free_all_blocks()
        try:
            return run(*args, **options)
        except short as error:
            raise out_of_memory(index, error) from error


def out_of_memory(index: int, error: MemoryError) -> DeviceMemoryError:
    """The error that says what was asked for, what is in use and what is free."""
    pool = gpu.xp().get_default_memory_pool()
    free, total = gpu.xp().cuda.Device(index).mem_info
    return DeviceMemoryError(
        f"cuda:{index}: {error}; arrays hold {pool.used_bytes():,} bytes, {free:,} of {total:,} bytes are free: use smaller "
        "batches, let go of tensors that are not needed any more, or ulpgrad.cuda.empty_cache() for other programs"
    )
