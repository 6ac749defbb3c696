"""A weight gradient in two passes: slices of the positions are summed apart, then their sums in their order."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Format, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv.cuda_arguments import MOST_BLOCKS, Shape, cdiv, kernels, strides

BLOCKS = 1024  # that are enough for any GPU
POSITIONS = 256  # of a slice, at least
MOST_SUMS = 1 << 26
THREADS = 256

SUM = kernels("conv_weight_sum.cu", "conv_weight_sum")


def slice_count(shape: Shape, tiles: int) -> int:
    """How many slices there are of a weight gradient whose tiles number `tiles`. Sizes alone decide, so that bits repeat."""
    most = min(MOST_BLOCKS // shape.groups, MOST_SUMS // shape.weights)
    return max(1, min(cdiv(BLOCKS, tiles), cdiv(shape.rows, POSITIONS), most))


class Slices:
    """The sums of a weight gradient in `count` slices: `parts`, which a first pass writes."""

    def __init__(self, form: Format | None, shape: Shape, count: int) -> None:
        self.form, self.shape, self.count = form, shape, count
        self.parts = gpu.xp().empty((self.count, shape.weights), np.float64 if form is float64 else np.float32)

    def sum(self, g: Any, x: Any, checked: bool = False) -> Any:
        """The gradient, when all parts have been written. `checked`: what is not finite is summed again by the definition."""
        shape = self.shape
        dw = gpu.xp().empty((shape.groups * shape.outputs, shape.inputs, *shape.kernel), g.dtype)
        grid = (min(cdiv(shape.weights, THREADS), 2**31 - 1), 1, 1)
        again = (g, x) if checked else (None, None)
        places = (shape.argument, strides(dw), np.int32(self.count))
        SUM[self.form].launch(grid, (THREADS, 1, 1), dw, self.parts, *places, *again, strides(g), strides(x))
        return dw
