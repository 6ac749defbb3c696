"""A plugin of pytest that has CuPy ask the driver for each array, so that memcheck sees where each ends: inside a pool's block it
sees nothing."""

from __future__ import annotations

from ulpgrad.kernels import capabilities, gpu

if not gpu.mode() and capabilities.missing("cuda") is None:
    gpu.xp().cuda.set_allocator(None)
