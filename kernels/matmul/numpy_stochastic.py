"""The machine's best product in float32, then each result rounded by a random word of its own. Next limit: results are written
and read again between the two steps.
"""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array, Format, float32
from ulpgrad.kernels.matmul import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.steps import best


def rounded(y: Array, dtype: Format, stream: dict[str, int]) -> Array:
    """float32 values in another format."""
    how: dict[str, Any] = {"dtype": dtype, "rounding": "stochastic", "overflow": None, "subnormals": True, **stream}
    codes: Array = best("quantize", float32, y, **how)(y, **how)
    return codes


@kernel(spec.matmul_stochastic, "cpu/numpy-steps", rank=20, formats=(float32,))
def matmul(a: Array, b: Array, *, dtype: Format, **stream: int) -> Array:
    return rounded(best("matmul", float32, a, b)(a, b), dtype, stream)


@kernel(spec.linear_stochastic, "cpu/numpy-steps", rank=20, formats=(float32,))
def linear(
    *arrays: Array | None, dtype: Format, activation: str | None = None, factor: float = 1.0, **stream: int
) -> Array:
    finish = {"activation": activation, "factor": factor}
    return rounded(best("linear", float32, *arrays, **finish)(*arrays, **finish), dtype, stream)
