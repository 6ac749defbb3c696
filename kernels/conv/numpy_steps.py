"""The machine's best convolution, then what follows it in steps on its result: scale, bias, residual and activation, in place.

Narrower floats are widened before and rounded once behind. Next limit: every step reads and writes the whole result again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Array, Format, float32, float64
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.matmul.numpy_stochastic import rounded
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.steps import best


@kernel(spec.conv2d_finished, "cpu/numpy-steps", rank=20, formats=(float32, float64), build=True)
def conv2d_finished(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None

    def run(
        x: Array, weight: Array, bias: Array | None, scale: Array | None, residual: Array | None, *,
        activation: str | None = None, residual_first: bool = False, dtype: Format | None = None, **geometry: Any,
    ) -> Array:  # fmt: skip
        apart = scale is not None or (residual is not None and residual_first)
        inner = {**geometry, "activation": None if apart else activation}
        given = (x, weight, None if apart else bias)
        y: Array = best("conv2d", form, *given, **inner)(*given, **inner)
        if apart:
            if scale is not None:
                y *= scale[:, None, None]
            if bias is not None:
                y += bias[:, None, None]
            if residual is not None and residual_first:
                y += residual
            if activation is not None:
                how = {"approximate": "none"} if activation == "gelu" else {}
                y = best(activation, form, y, **how)(y, **how)
        if residual is not None and not residual_first:
            y += residual
        return y if dtype is None else convert(y, form, dtype)

    return run


@kernel(spec.conv2d_stochastic, "cpu/numpy-steps", rank=20, formats=(float32,))
def conv2d_stochastic(
    x: Array, weight: Array, bias: Array | None, scale: Array | None = None, *, dtype: Format, key: int, counter: int,
    random_bits: int, **how: Any,
) -> Array:  # fmt: skip
    """The same in float32, then each result rounded by a random word of its own."""
    given = x, weight, bias, scale, None
    y: Array = best("conv2d_finished", float32, *given, **how)(*given, **how)
    return rounded(y, dtype, {"key": key, "counter": counter, "random_bits": random_bits})
