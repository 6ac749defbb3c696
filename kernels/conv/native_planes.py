"""No patch matrix: images lie on padded planes, where a row of it is a pointer; register tiles of pixels x outputs run
over all taps.

A padded copy of each image (one per stride phase, in blocks of 16 channels) is all that is written, instead of
kernel-size copies. Copying in and out is where layouts and formats end: squares of pixels x channels are turned in
registers, 16-bit floats widened and rounded once, so that channels first or last, float32 or float16 run on the same
tiles. The result lies as x does: channels last for channels last. Where groups are small (depthwise), the tiles' lanes
are groups.

With AVX-512 BF16, bfloat16 lies on the planes in pairs (of channels; of positions for the weight gradient), and the
unit multiplies both and adds them in float32. It takes subnormal numbers for zero: operands that hold any (or infinity
or NaN) take the widened road, and only sums below 2^-126 are flushed. Next limit: the multiply-add units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Array, Format, bfloat16, float16, float32, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.cast import convert
from ulpgrad.kernels.conv import spec
from ulpgrad.kernels.conv.geometry import Pair
from ulpgrad.kernels.registry import Request, kernel

FORMATS = (float32, float64, bfloat16, float16)


@kernel(spec.conv2d, "cpu/native-planes", rank=60, formats=FORMATS)
def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    groups: int,
    activation: str | None = None,
) -> Any:
    return native.module().conv2d(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups, activation=activation or ""
    )


@kernel(
    spec.conv2d_finished,
    "cpu/native-planes",
    rank=60,
    formats=FORMATS,
    build=True,
    idea="Scale, bias, residual and activation follow the sums while these are in the cache: the result is written once.",
)
def conv2d_finished(request: Request) -> Callable[..., Any]:
    form = request.formats[0]
    assert form is not None

    def run(
        *given: Array | None, activation: str | None = None, dtype: Format | None = None, **params: Any
    ) -> Any:  # of another format than x's: sums of 16-bit floats are rounded once, to that
        sums = float32 if dtype not in (None, form) and form is not float64 else form
        if sums is not form:
            given = tuple(None if a is None else convert(a, form, sums) for a in given)
        y = native.module().conv2d_finished(*given, activation=activation or "", **params)
        return y if dtype in (None, sums) else convert(y, sums, dtype)

    return run


@kernel(
    spec.conv2d_max_pool,
    "cpu/native-planes",
    rank=60,
    formats=FORMATS,
    idea="Each window's largest sum is taken while its rows are in the cache: of a 2 x 2 window a quarter is written.",
)
def conv2d_max_pool(
    x: Array,
    weight: Array,
    bias: Array | None,
    *,
    stride: Pair,
    padding: Pair,
    dilation: Pair,
    window: Pair,
    activation: str | None = None,
) -> Any:
    return native.module().conv2d_max_pool(
        x, weight, bias, stride=stride, padding=padding, dilation=dilation, window=window, activation=activation or ""
    )


@kernel(spec.conv2d_input_gradient, "cpu/native-planes", rank=60, formats=FORMATS)
def input_gradient(
    g: Array, weight: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int
) -> Any:
    return native.module().conv2d_input_gradient(
        g, weight, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )


@kernel(spec.conv2d_weight_gradient, "cpu/native-planes", rank=60, formats=FORMATS)
def weight_gradient(g: Array, x: Array, *, size: Pair, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
    return native.module().conv2d_weight_gradient(
        g, x, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
