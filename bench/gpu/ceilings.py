"""What the device does at most, measured in the same run: copy bandwidth, and products of each format by cuBLAS."""

from __future__ import annotations

from functools import cache

import numpy as np

from ulpgrad.bench.gpu import draw, events
from ulpgrad.bench.peers.others import imported
from ulpgrad.kernels import gpu

COPIED = 1 << 30  # bytes
SIDE = 8192
CUPY = {"float16": np.float16, "bfloat16": np.float16, "float32": np.float32, "float64": np.float64}


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
    """Operations a second of cuBLAS on square matrices of random values: through CuPy in the formats that it has (bfloat16 is
    as fast as float16), else through torch; None where neither can, or for a format that has no unit. "tf32": matrix units on
    float32 whose last 13 bits they do not read."""
    if gpu.mode():
        return None
    work = 2.0 * SIDE**3
    if form in CUPY:
        xp = gpu.xp()
        a, b = (draw.normal((SIDE, SIDE), seed).astype(CUPY[form]) for seed in (1, 2))
        return work / events.median(lambda: xp.matmul(a, b))
    torch = imported("torch")
    if torch is None or not torch.cuda.is_available() or form not in ("int8", "float8_e4m3fn", "tf32"):
        return None
    if form == "tf32":
        mine, theirs = (draw.for_torch(torch, (SIDE, SIDE), "float32", seed) for seed in (1, 2))
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
        rate = work / events.median(lambda: torch.matmul(mine, theirs))
        torch.backends.cuda.matmul.allow_tf32 = before
        return rate
    mine, theirs = (draw.for_torch(torch, (SIDE, SIDE), form, seed) for seed in (1, 2))
    return work / events.median(draw.torch_product(torch, form, mine, theirs))
