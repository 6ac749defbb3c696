"""Tensors from one device to another."""

from __future__ import annotations

from ulpgrad.device import CPU, Device
from ulpgrad.differentiable import moved
from ulpgrad.kernels import gpu
from ulpgrad.ops.creation import copy as copy_of
from ulpgrad.tensor import Tensor

__all__ = ["to_device"]


def to_device(x: Tensor, device: Device, *, copy: bool = False) -> Tensor:
    """`x` on a device: itself if it is there already (with `copy=True` a copy), else a copy. The gradient moves back."""
    source = x.device
    if source == device:
        return copy_of(x) if copy else x
    if device == CPU:
        return moved("copy", [x], gpu.to_host, lambda g: to_device(g, source))
    return moved("copy", [x], lambda storage: gpu.to_device(storage, device.index), lambda g: to_device(g, source))
