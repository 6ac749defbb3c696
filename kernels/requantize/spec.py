"""requantize: sums of products as narrow codes again, by an integer multiplier and a shift instead of a real scale.

    y = clamp(round((x + bias) * multiplier / 2^shift) + zero_point, low, high)

with one rounding to nearest of the exact quotient. The sum x + bias wraps in x's own width, as the accumulator that it ends
does. With multiplier in [2^30, 2^31) and ties="up" this is `apply_scale_32` of the TOSA specification (without double
rounding) and TensorFlow Lite's `MultiplyByQuantizedMultiplier` with single rounding; without multiplier, and with
ties="even", it is a shift of the radix point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, AxisError, FormatError, ShapeError
from ulpgrad.formats import Array, Format, int32, int64
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.requantize.samples import RESULTS, TIES, conv2d_samples, linear_samples, samples
from ulpgrad.kernels.spec import Op

RANGES = {form: (form.min, form.max) for form in RESULTS}
LARGEST_SHIFT = 62


def along(values: Array, axis: int, ndim: int) -> Array:
    """One value per channel, shaped to broadcast along the axis of the channels."""
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def wrapped(total: Array, bits: int) -> Array:
    """Python integers modulo 2^bits, as two's complement."""
    return np.asarray((total + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)))


def round_shift(product: Array, shift: Array, ties: str) -> Array:
    """product / 2^shift to the nearest integer, exactly, of Python integers."""
    one = np.asarray(1, dtype=object)
    unit = np.left_shift(one, shift)
    whole, rest = np.floor_divide(product, unit), np.remainder(product, unit) * 2
    up = (rest > unit) | ((rest == unit) & ((whole % 2 == 1) if ties == "even" else True))
    return np.asarray(whole + up.astype(object))


def _reference(
    x: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, axis: int, zero_point: int, low: int,
    high: int, ties: str, dtype: Format,
) -> Array:  # fmt: skip
    total = x.astype(object)
    if bias is not None:
        total = wrapped(total + along(bias, axis, x.ndim), x.dtype.itemsize * 8)
    if multiplier is not None:
        total = total * along(multiplier, axis, x.ndim).astype(object)
    shifts = np.broadcast_to(along(shift, axis, x.ndim).astype(object), x.shape)
    codes = round_shift(total, shifts, ties) + zero_point
    return np.asarray(np.clip(codes, low, high)).astype(np.int64)


def _check(
    x: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, axis: int, zero_point: int, low: int,
    high: int, ties: str, dtype: Format,
) -> None:  # fmt: skip
    if dtype not in RESULTS:
        raise FormatError(f"requantize: dtype={dtype}: expected one of {', '.join(f.name for f in RESULTS)}")
    if not 0 <= axis < x.ndim:
        raise AxisError(f"requantize: axis {axis} is outside x of shape {x.shape}")
    if ties not in TIES:
        raise ArgumentError(f"requantize: ties={ties!r}: expected one of {', '.join(TIES)}")
    for name, values, storage in (
        ("multiplier", multiplier, np.int32),
        ("shift", shift, np.int32),
        ("bias", bias, x.dtype),
    ):
        if values is not None and values.dtype != storage:
            raise FormatError(
                f"requantize: {name} is {values.dtype}: expected {np.dtype(storage)} beside x of {x.dtype}"
            )
        if values is not None and values.shape != (x.shape[axis],):
            raise ShapeError(
                f"requantize: {name} has shape {values.shape}: expected ({x.shape[axis]},), one for each channel on "
                f"axis {axis} of x {x.shape}"
            )
    if multiplier is not None and x.dtype != np.int32:
        raise FormatError(f"requantize: x is {x.dtype}: a multiplier needs int32; without one the shift alone scales")
    if multiplier is not None and multiplier.size and multiplier.min() < 0:
        raise ArgumentError(f"requantize: multiplier {multiplier.min()}: expected 0 to 2^31 - 1")
    if shift.size and not (shift.min() >= 0 and shift.max() <= LARGEST_SHIFT):
        bad = shift.min() if shift.min() < 0 else shift.max()
        raise ArgumentError(f"requantize: shift {bad}: expected 0 to {LARGEST_SHIFT}")
    least, most = RANGES[dtype]
    if not least <= low <= high <= most:
        raise ArgumentError(f"requantize: clamp {low} to {high}: expected a range within {dtype}, {least} to {most}")
    if not least <= zero_point <= most:
        raise ArgumentError(f"requantize: zero_point {zero_point} is outside {dtype}, {least} to {most}")


requantize = Op(
    "requantize",
    "(x: [..., c, ...], multiplier: [c] | None, shift: [c], bias: [c] | None, *, axis, zero_point, low, high, ties, dtype) "
    "-> [..., c, ...]",
    _reference,
    doc="Accumulators as codes: bias, integer multiplier, shift rounded to nearest (`ties`: up or even), zero point and clamp.",
    check=_check,
    result=lambda *_, dtype, **__: dtype,
    promote=(0,),
    formats=(int32, int64),
    flops=lambda x, *_, **__: 5.0 * x.size,
    samples=samples,
    key=lambda x, multiplier, shift, bias, *, axis, ties, dtype, **_: (multiplier is None, dtype, ties),
)

LINEAR_FORMATS = (*integer.FORMATS, int32, int64)


def _linear_reference(
    x: Array, weight: Array, multiplier: Array | None, shift: Array, bias: Array | None, *, accumulator: str, **how: Any
) -> Array:
    sums = integer.reference(x, weight.T, accumulator, "integer_linear")
    return _reference(sums, multiplier, shift, bias, axis=x.ndim - 1, **how)


def _check_linear(x: Any, weight: Any, multiplier: Any, shift: Any, bias: Any, *, accumulator: str, **how: Any) -> None:
    if accumulator not in ("int32", "int64"):
        raise ArgumentError(f"integer_linear: accumulator={accumulator!r}: expected 'int32' or 'int64'")
    for name, codes in (("x", x), ("weight", weight)):
        if codes.dtype not in integer.DTYPES:
            raise FormatError(f"integer_linear: {name} is {codes.dtype}: expected int8, uint8 or int16 codes")
    if weight.ndim != 2 or x.ndim < 2 or x.shape[-1] != weight.shape[1]:
        raise ShapeError(f"integer_linear: expected x (..., in) and weight (out, in), got {x.shape} and {weight.shape}")
    sums = np.broadcast_to(np.zeros((), accumulator), (*x.shape[:-1], len(weight)))  # a view of one value
    _check(sums, multiplier, shift, bias, axis=x.ndim - 1, **how)


integer_linear = Op(
    "integer_linear",
    "(x: [..., k], weight: [n, k], multiplier: [n] | None, shift: [n], bias: [n] | None, *, accumulator, zero_point, low, "
    "high, ties, dtype) -> [..., n]",
    _linear_reference,
    doc="A layer of integers from codes to codes: integer_matmul with the weight transposed, on sums of 32 or 64 bits, and "
    "requantize.",
    check=_check_linear,
    result=lambda *_, dtype, **__: dtype,
    promote=(0,),
    formats=LINEAR_FORMATS,
    flops=lambda x, weight, *_, **__: 2.0 * x.size * len(weight),
    samples=linear_samples,
    key=lambda x, weight, multiplier, *_, accumulator, ties, dtype, **__: (
        multiplier is None,
        accumulator,
        dtype,
        ties,
    ),
)

GEOMETRY = ("stride", "padding", "dilation", "groups", "accumulator", "pad")


def parts(params: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of the convolution, and those of what follows it."""
    of_sums = {name: params[name] for name in GEOMETRY if name in params}
    return of_sums, {name: value for name, value in params.items() if name not in of_sums}


def _conv2d_reference(
    x: Array, weight: Array, multiplier: Array | None, shift: Array, bias: Array | None, **params: Any
) -> Array:
    of_sums, how = parts(params)
    return _reference(integer.integer_conv2d.reference(x, weight, **of_sums), multiplier, shift, bias, axis=1, **how)


def _check_conv2d(x: Any, weight: Any, multiplier: Any, shift: Any, bias: Any, **params: Any) -> None:
    op, (of_sums, how) = "integer_conv2d_requantized", parts(params)
    if of_sums.get("accumulator") not in ("int32", "int64"):
        raise ArgumentError(f"{op}: accumulator={of_sums.get('accumulator')!r}: expected 'int32' or 'int64'")
    integer.check_conv2d(op, x, weight, **of_sums)
    sums = np.broadcast_to(np.zeros((), of_sums["accumulator"]), (1, len(weight)))  # a view of one value
    _check(sums, multiplier, shift, bias, axis=1, **how)


integer_conv2d_requantized = Op(
    "integer_conv2d_requantized",
    "(x: [n, c, h, w], weight: [o, c/groups, kh, kw], multiplier: [o] | None, shift: [o], bias: [o] | None, *, stride, padding, "
    "dilation, groups, accumulator, pad=0, zero_point, low, high, ties, dtype) -> [n, o, oh, ow]",
    _conv2d_reference,
    doc="A convolution of integers from codes to codes: integer_conv2d, on sums of 32 or 64 bits, and requantize. `pad` is the "
    "code that padding holds.",
    check=_check_conv2d,
    result=lambda *_, dtype, **__: dtype,
    promote=(0,),
    formats=LINEAR_FORMATS,
    flops=lambda x, weight, *_, **params: integer.integer_conv2d.flops(x, weight, **parts(params)[0]),
    samples=conv2d_samples,
    key=lambda x, weight, multiplier, shift, bias, **params: (
        multiplier is None,
        params["dtype"],
        params["ties"],
        integer.conv2d_key(x, weight, **parts(params)[0]),
    ),
)

__all__ = [
    "LARGEST_SHIFT", "LINEAR_FORMATS", "RESULTS", "TIES", "along", "integer_conv2d_requantized", "integer_linear", "parts",
    "requantize", "round_shift", "wrapped",
]  # fmt: skip
