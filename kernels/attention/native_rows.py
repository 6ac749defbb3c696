"""One query after the other: a row of scores, its softmax, the values weighed by it. No matrix of scores is held.

By plain loops, slower than the reference, whose products are NumPy's. Next limit: every product of a score waits for the sum
before it, and one lane of sixteen works.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, float32
from ulpgrad.kernels.attention import spec, staircase
from ulpgrad.kernels.registry import kernel


@kernel(spec.attention, "cpu/native-rows", rank=4, formats=[float32], where=staircase.maskless, contiguous=True)
def attention(q: Array, k: Array, v: Array, mask: None, *_: None, is_causal: bool, scale: float) -> Any:
    return staircase.attend("rows", q, k, v, is_causal, scale)
