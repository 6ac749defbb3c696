"""On the products and convolutions of codes that a GPU has: columns in any accumulator, phases of the stride where sums are
free in their order."""

from __future__ import annotations

from typing import Any

from ulpgrad.kernels.integer.accumulator import refuses_order
from ulpgrad.kernels.integer_gradients import products, spec
from ulpgrad.kernels.registry import kernel


@kernel(spec.integer_conv2d_input_gradient, "cuda/cupy-columns", rank=20, formats=spec.FORMATS)
def input_gradient(g: Any, weight: Any, **params: Any) -> Any:
    return products.input_gradient("cuda", g, weight, **params)


@kernel(spec.integer_conv2d_input_gradient, "cuda/cupy-phases", rank=40, formats=spec.FORMATS, where=refuses_order)
def input_gradient_by_phases(g: Any, weight: Any, **params: Any) -> Any:
    return products.input_gradient_by_phases("cuda", g, weight, **params)


@kernel(spec.integer_conv2d_weight_gradient, "cuda/cupy-columns", rank=20, formats=spec.FORMATS)
def weight_gradient(g: Any, x: Any, **params: Any) -> Any:
    return products.weight_gradient("cuda", g, x, **params)
