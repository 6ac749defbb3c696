"""What meets what is written out, and the best integer product of matrices multiplies it, in any accumulator. Next limit: as many
copies of the images as filters have taps."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels.integer_gradients import products, spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_conv2d_input_gradient, "cpu/numpy-columns", rank=20, formats=spec.FORMATS)
def input_gradient(g: Array, weight: Array, **params: Any) -> Array:
    found: Array = products.input_gradient("cpu", g, weight, **params)
    return found


@kernel(spec.integer_conv2d_weight_gradient, "cpu/numpy-columns", rank=20, formats=spec.FORMATS)
def weight_gradient(g: Array, x: Array, **params: Any) -> Array:
    found: Array = products.weight_gradient("cpu", g, x, **params)
    return found
