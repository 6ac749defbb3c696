"""C++: the same sums in vectors; `multi.squares` takes a list of gradients at once.

Next limit: memory bandwidth.
"""

from __future__ import annotations

from ulpgrad.formats import Array, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.optimizer.spec import State, flat_in_one_format, sum_of_squares
from ulpgrad.kernels.registry import kernel


@kernel(sum_of_squares, "cpu/native-lanes", rank=50, formats=[float32, float64], where=flat_in_one_format)
def run(g: Array, scaling: State) -> Array:
    found: Array = native.module().sum_of_squares(((g, scaling),))
    return found.reshape(())
