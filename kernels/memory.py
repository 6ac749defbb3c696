"""Memory of results. The C++ extension keeps the blocks of arrays that were let go, and hands them out again: a new mapping
would be paged in by the system at every use, which takes longer than most kernels.

Arrays are ordinary NumPy arrays that own their memory, aligned to 64 bytes; a block is kept as soon as the last array on it
is gone. At most `ULPGRAD_CACHE_MB` MiB are kept (default: an eighth of the machine's memory, at most 1024; 0 leaves
memory to NumPy). An allocation that fails empties the cache and is tried again before it raises MemoryError.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array
from ulpgrad.kernels import gpu, native

NOTHING = {"in_use": 0, "peak": 0, "cached": 0, "limit": 0, "reused": 0, "allocated": 0}


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """A new C-contiguous array whose values are not set."""
    if native.missing() is not None:
        return np.empty(shape, dtype)
    out: Array = native.module().empty(shape, np.dtype(dtype))
    return out


def zeros(shape: tuple[int, ...], dtype: Any) -> Array:
    """A new C-contiguous array of zeros."""
    if native.missing() is not None:
        return np.zeros(shape, dtype)
    out = empty(shape, dtype)
    out.fill(0)
    return out


def empty_beside(array: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """As `empty`, of the array's type (or another) on the device that it lies on."""
    if isinstance(array, np.ndarray):
        return empty(shape, dtype or array.dtype)
    with gpu.on_device(array.device.id):
        return gpu.xp().empty(shape, dtype or array.dtype)


def zeros_beside(array: Any, shape: tuple[int, ...], dtype: Any = None) -> Any:
    """Zeros of the array's type (or another) on the device that it lies on."""
    if isinstance(array, np.ndarray):
        return zeros(shape, dtype or array.dtype)
    with gpu.on_device(array.device.id):
        return gpu.xp().zeros(shape, dtype or array.dtype)


def stats() -> dict[str, int]:
    """Bytes in blocks that arrays hold now (`in_use`) and held at most (`peak`), bytes kept for later (`cached`) and at most
    (`limit`); how often a kept block was taken (`reused`), and how often the system was asked for one (`allocated`).

    Results of up to 1 KiB are NumPy's and are not counted. Without the C++ extension all are 0.
    """
    return dict(NOTHING) if native.missing() is not None else native.module().cache_stats()


def empty_cache() -> None:
    """Give all kept blocks back to the system."""
    if native.missing() is None:
        native.module().empty_cache()


def set_limit(bytes: int) -> None:
    """Keep at most so many bytes; what is more goes back to the system now. 0 switches the cache off."""
    if not isinstance(bytes, int) or not 0 <= bytes < 2**63:
        raise ArgumentError(f"set_limit: expected a number of bytes from 0 to below 2**63, got {bytes!r}")
    if native.missing() is None:
        native.module().set_cache_limit(bytes)
