"""Each phase of the stride is a convolution of g with the taps that belong to it, turned round, by the best kernel of
integer_conv2d: nothing is multiplied by zeros that a stride leaves between. Next limit: results of a stride are put between
each other in a pass of their own."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer.accumulator import refuses_order
from ulpgrad.kernels.integer_gradients import products, spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_conv2d_input_gradient, "cpu/numpy-phases", rank=40, formats=spec.FORMATS, where=refuses_order)
def input_gradient(g: Array, weight: Array, **params: Any) -> Array:
    found: Array = products.input_gradient_by_phases("cpu", g, weight, **params)
    return found
