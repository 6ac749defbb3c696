"""Tensors from one device to another."""

from __future__ import annotations

from ulpgrad.device import Device
from ulpgrad.differentiable import carried
from ulpgrad.kernels import gpu
from ulpgrad.ops.creation import copy as copy_of
from ulpgrad.tensor import Tensor

__all__ = ["to_device"]


def to_device(x: Tensor, device: Device, *, copy: bool = False, non_blocking: bool = False) -> Tensor:
    """`x` on a device: itself if it is there already (with `copy=True` a copy), else a copy. The gradient moves back.

    A copy from pinned memory is waited for unless `non_blocking`, so that the memory may be written to afterwards.
    """
    if x.device == device:
        return copy_of(x) if copy else x
    with gpu.going_on(non_blocking):
        return carried(x, device)
