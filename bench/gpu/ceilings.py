"""What the device does at most, measured in the same run: copy bandwidth, and products of each format by cuBLAS."""

from __future__ import annotations

from functools import cache

import numpy as np

from ulpgrad.bench.gpu import draw, events
from ulpgrad.kernels import gpu

COPIED = 1 << 30  # bytes
SIDE = 8192
TORCH = ("bfloat16", "float16", "float8_e4m3fn", "int8", "tf32")
CUPY = {"float16": np.float16, "bfloat16": np.float16, "float32": np.float32, "float64": np.float64}


@cache
def copy_bandwidth() -> float:
    """Bytes read and written a second by a copy on the device."""
    xp = gpu.xp()
    size = COPIED if not gpu.mode() else 1 << 16
    x, y = draw.normal((size // 4,), 1), xp.empty(size // 4, np.float32)

    def call() -> None:
        y[...] = x

    return 2 * size / events.median(call)


@cache
def product_rate(form: str) -> float | None:
    """Operations a second of cuBLAS on square matrices of random values: through torch in the formats of matrix units, else
    through CuPy in those that it has (float16 stands for bfloat16 there); None where neither can, or for a format that has no
    unit. "tf32": matrix units on float32 whose last 13 bits they do not read."""
    if gpu.mode():
        return None
    work, torch = 2.0 * SIDE**3, draw.torch()
    if torch is None or form not in TORCH:
        if form not in CUPY:
            return None
        xp = gpu.xp()
        a, b = (draw.normal((SIDE, SIDE), seed).astype(CUPY[form]) for seed in (1, 2))
        return work / events.median(lambda: xp.matmul(a, b))
    units = torch.backends.cuda.matmul
    mine, theirs = (draw.for_torch(torch, (SIDE, SIDE), "float32" if form == "tf32" else form, seed) for seed in (1, 2))
    before = units.allow_tf32
    try:
        units.allow_tf32 = form == "tf32"
        return work / events.median(draw.torch_product(torch, form, mine, theirs))
    finally:
        units.allow_tf32 = before  # rows beside it are as exact as float32
