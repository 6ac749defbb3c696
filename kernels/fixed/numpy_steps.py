"""The machine's best convolution of codes, then the machine's best cut of its sums. Next limit: sums of 32 or 64 bits are written
and read again between the two.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.formats import INTEGERS, Array
from ulpgrad.kernels.fixed import spec
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.fixed.spec import int_format
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.steps import best


@kernel(spec.conv2d, "cpu/numpy-steps", rank=20, formats=INTEGERS)
def conv2d(
    x: Array, weight: Array, bias: Array | None, words: Array | None, *, left: int, right: int, cut: Cut, **how: Any
) -> Any:
    forms = int_format(x.dtype), int_format(weight.dtype)
    sums: Array = best("integer_conv2d", forms, x, weight, **how)(x, weight, **how)
    form = int_format(sums.dtype)
    if bias is None and not left:
        kept = {"sign": "keep", "cut": cut}
        return best("fixed_rescale", (form, None), sums, words, **kept)(sums, words, **kept)  # type: ignore[arg-type]
    added = np.zeros((1, 1, 1), np.int8) if bias is None else bias.reshape(-1, 1, 1)
    joined = {"left": left, "right": right, "subtract": False, "cut": cut}
    formats = form, int_format(added.dtype), None
    return best("fixed_add", formats, sums, added, words, **joined)(sums, added, words, **joined)  # type: ignore[arg-type]
