"""The machine's best convolution of codes, then the machine's best requantisation of its sums. Next limit: four bytes are written
and read again for each code.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, as_format
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.requantize import spec
from ulpgrad.kernels.steps import best


@kernel(spec.integer_conv2d_requantized, "cpu/numpy-steps", rank=20, formats=spec.LINEAR_FORMATS)
def integer_conv2d_requantized(
    x: Array, weight: Array, multiplier: Array | None, shift: Array, bias: Array | None, **params: Any
) -> Any:
    of_sums, how = spec.parts(params)
    forms = as_format(x.dtype), as_format(weight.dtype)
    sums: Array = best("integer_conv2d", forms, x, weight, **of_sums)(x, weight, **of_sums)
    arrays = sums, multiplier, shift, bias
    formats: Any = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    return best("requantize", formats, *arrays, axis=1, **how)(*arrays, axis=1, **how)
