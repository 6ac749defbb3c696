"""What the device does at most, measured in the same run: copy bandwidth, and products of each format by cuBLAS."""

from __future__ import annotations

from functools import cache

import numpy as np

from ulpgrad.bench.gpu import draw, events
from ulpgrad.bench.peers.others import imported
from ulpgrad.kernels import gpu

COPIED = 1 << 30  # bytes
SIDE = 8192


@cache
def copy_bandwidth() -> float:
    """Bytes read and written a second by a copy on the device."""
    xp = gpu.xp()
    size = COPIED if not gpu.mode() else 1 << 16
    x, y = xp.zeros(size // 4, np.float32), xp.empty(size // 4, np.float32)

    def call() -> None:
        y[...] = x

    return 2 * size / events.median(call)


@cache
def product_rate(form: str) -> float | None:
    """Operations a second of cuBLAS on square matrices of random values, through torch; None without torch on a GPU."""
    torch = imported("torch")
    if gpu.mode() or torch is None or not torch.cuda.is_available():
        return None
    a, b = (draw.for_torch(torch, (SIDE, SIDE), form, seed=s) for s in (1, 2))
    return 2.0 * SIDE**3 / events.median(draw.torch_product(torch, form, a, b))
