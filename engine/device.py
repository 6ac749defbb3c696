"""Devices: where a tensor's storage lies. The storage itself knows (a NumPy array is on the CPU, a CuPy array on its GPU)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad.errors import DeviceError


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
    from ulpgrad.kernels import capabilities, gpu

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
