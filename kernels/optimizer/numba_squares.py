"""Sixteen sums side by side, of values that are widened and scaled as they are read: no temporary in float64.

Next limit: each value is converted on its own where the compiler does not see that rows of sixteen lie side by side.
"""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels.numba_jit import jit, prange
from ulpgrad.kernels.optimizer.numba_fused import factors_of, scaled
from ulpgrad.kernels.optimizer.spec import PIECE, State, flat_in_one_format, sum_of_squares
from ulpgrad.kernels.registry import kernel


@jit(parallel=True)
def _squares(g, factors, pieces):  # type: ignore[no-untyped-def]
    for piece in prange(len(pieces)):
        part = g[piece * 1024 : (piece + 1) * 1024]
        lanes = np.zeros(16)
        for row in range(len(part) // 16):
            for lane in range(16):
                value = np.float64(scaled(part[16 * row + lane], factors))
                lanes[lane] += value * value
        for i in range(len(part) // 16 * 16, len(part)):
            value = np.float64(scaled(part[i], factors))
            lanes[i % 16] += value * value
        total = 0.0
        for lane in range(16):
            total += lanes[lane]
        pieces[piece] = total


@kernel(sum_of_squares, "cpu/numba-lanes", rank=20, formats=[float32, float64], where=flat_in_one_format)
def run(g: Array, scaling: State) -> Array:
    pieces = np.empty(-(-g.size // PIECE))
    _squares(g.reshape(-1), factors_of(g, scaling), pieces)
    return np.asarray(np.cumsum(pieces)[-1] if len(pieces) else 0.0)
