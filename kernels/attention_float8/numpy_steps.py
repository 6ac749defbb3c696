"""Operands in float32, the machine's best attention, then the factor and one rounding. Next limit: values take four times the
memory of codes, and no unit of a CPU multiplies 8-bit floats.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format, bfloat16, bool_, float32, int32
from ulpgrad.kernels.attention_float8 import spec
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.steps import best


@kernel(spec.attention_float8, "cpu/numpy-steps", rank=20, formats=(*spec.FORMATS, bool_, int32), build=True)
def attention(request: Request) -> Any:
    forms = request.formats

    def run(
        q: Array, k: Array, v: Array, mask: Array | None = None, scales: Array | None = None, *, factor: float = 1.0,
        dtype: Format = bfloat16, lower_right: bool = False, **how: Any,
    ) -> Array:  # fmt: skip
        q, k, v = (convert(a, form, float32) for a, form in zip((q, k, v), forms, strict=False) if form is not None)
        numbers = None if scales is None else scales.view(np.float32)[..., None, None, :]
        if numbers is not None:
            q *= numbers[..., 0]
        if lower_right:
            how["lower_right"] = True
        kinds = float32 if mask is None else (float32, float32, float32, bool_)
        y: Array = best("attention", kinds, q, k, v, mask, **how)(q, k, v, mask, **how)[0]
        if factor != 1.0:
            y *= float32.storage.type(factor)
        if numbers is not None:
            y *= numbers[..., 1]
        return y if dtype is float32 else convert(y, float32, dtype)

    return run
