"""Operands in float32, the machine's best attention, then the factor and one rounding. Next limit: values take four times the
memory of codes, and no unit of a CPU multiplies 8-bit floats.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, Format, bfloat16, float32
from ulpgrad.kernels.attention_float8 import spec
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.steps import best


@kernel(spec.attention_float8, "cpu/numpy-steps", rank=20, formats=spec.FORMATS, build=True)
def attention(request: Request) -> Any:
    forms = request.formats

    def run(
        *arrays: Array, factor: float = 1.0, dtype: Format = bfloat16, lower_right: bool = False, **how: Any
    ) -> Array:
        q, k, v = (convert(a, form, float32) for a, form in zip(arrays, forms, strict=True) if form is not None)
        if lower_right:
            how["lower_right"] = True
        y: Array = best("attention", float32, q, k, v, None, **how)(q, k, v, None, **how)[0]
        if factor != 1.0:
            y *= float32.storage.type(factor)
        return y if dtype is float32 else convert(y, float32, dtype)

    return run
