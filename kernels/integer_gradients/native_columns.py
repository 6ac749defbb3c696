"""What filters have met is written by all threads, long rows at a time; the best integer product of matrices multiplies it. Next
limit: those columns are written to memory, where a tile could take them from the images."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels import native
from ulpgrad.kernels.integer_gradients import products, spec
from ulpgrad.kernels.registry import kernel


def columns(x: Array, size: tuple[int, int], **geometry: Any) -> Array:
    """[c, kh, kw, n, oh, ow] of images [n, c, h, w]."""
    found: Array = native.module().integer_columns(x, size, **geometry)
    return found


@kernel(spec.integer_conv2d_weight_gradient, "cpu/native-columns", rank=50, formats=spec.FORMATS)
def weight_gradient(g: Array, x: Array, **params: Any) -> Array:
    found: Array = products.weight_gradient("cpu", g, x, **params, columns=columns)
    return found
