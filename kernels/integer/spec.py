"""Integer products in a chosen accumulator: what they are, in Python's own integers, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ulpgrad.errors import AccumulatorError, ArgumentError, FormatError, ShapeError
from ulpgrad.formats import Array, Format, int8, int16, int32, int64, uint8
from ulpgrad.kernels.conv.columns import patches
from ulpgrad.kernels.conv.geometry import Pair, check_axes, check_windows, output_size
from ulpgrad.kernels.integer.accumulator import INT32, INT64, OVERFLOWS, ROUNDINGS, Accumulator, as_accumulator
from ulpgrad.kernels.spec import Op, Sample

FORMATS = (int8, uint8, int16)
DTYPES = tuple(f.storage for f in FORMATS)
EXACT_BYTES = (2**31 - 1) // 255**2  # products of bytes whose sum fits 32 bits, whatever they are

Shape = tuple[int, ...]


def result_dtype(accumulator: Any) -> np.dtype[Any]:
    """int32, or int64 for accumulators wider than that."""
    return np.dtype(np.int32 if as_accumulator(accumulator).bits <= 32 else np.int64)


def overflowed(op: str, accumulator: Accumulator, index: tuple[int, ...], k: int) -> AccumulatorError:
    """The error of an accumulator that raises."""
    where = f"k = {k}" if accumulator.chunk == 1 else f"the chunk from k = {k} on"
    return AccumulatorError(
        f"{op}: result {index} leaves its {accumulator.bits}-bit accumulator ({accumulator.low} to {accumulator.high}) at "
        f"{where}: take more bits, a larger shift, or overflow='saturate'",
        index=index,
        k=k,
    )


def reference(a: Array, b: Array, accumulator: Any, op: str = "integer_matmul") -> Array:
    """The definition, chunk by chunk in Python's integers (NumPy's where nothing is done but to wrap)."""
    chosen = as_accumulator(accumulator)
    if chosen in (INT32, INT64):
        return np.matmul(a.astype(np.int64), b.astype(np.int64)).astype(result_dtype(chosen))
    left, right, k = a.astype(object), b.astype(object), a.shape[-1]
    rounded, limited, fits = (np.frompyfunc(f, 1, 1) for f in (chosen.rounded, chosen.limited, chosen.fits))
    shape = (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    total: Any = np.zeros(shape, object)
    first = np.full(shape, -1)
    for p in range(0, k, chosen.chunk):
        some = slice(p, min(k, p + chosen.chunk))
        more: Any = rounded(np.matmul(left[..., some], right[..., some, :]))
        fitting = np.asarray(fits(more), bool)
        more = total + limited(more)
        fitting &= np.asarray(fits(more), bool)
        first[(first < 0) & ~fitting] = p
        total = limited(more)
    if chosen.overflow == "raise" and (first >= 0).any():
        index = tuple(int(i) for i in np.argwhere(first >= 0)[0])
        raise overflowed(op, chosen, index, int(first[index]))
    return total.astype(result_dtype(chosen))


def conv2d_by_matmul(
    x: Array, weight: Array, *, stride: Pair, padding: Pair, dilation: Pair, groups: int, accumulator: Any, pad: int,
    matmul: Any,
) -> Array:  # fmt: skip
    """Convolution as a stack of products, one per image and group: weights times what each tap meets."""
    (images, channels), outputs, kernel = x.shape[:2], weight.shape[0], weight.shape[2:]
    rows, columns = output_size(x.shape[2:], kernel, stride, padding, dilation)
    met = patches(x, kernel, np, pad, stride=stride, padding=padding, dilation=dilation)
    seen = met.reshape(images, groups, channels // groups * math.prod(kernel), rows * columns)
    filters = weight.reshape(groups, outputs // groups, math.prod(weight.shape[1:]))
    try:
        y = matmul(filters, seen, accumulator)
    except AccumulatorError as error:
        image, group, row, pixel = error.index
        index = (image, group * (outputs // groups) + row, pixel // columns, pixel % columns)
        raise overflowed("integer_conv2d", as_accumulator(accumulator), index, error.k) from None
    return np.asarray(y).reshape(images, outputs, rows, columns)


def _conv2d(
    x: Array, weight: Array, *, stride: Pair, padding: Pair, dilation: Pair, groups: int, accumulator: Any = None,
    pad: int = 0,
) -> Array:  # fmt: skip
    return conv2d_by_matmul(
        x, weight, stride=stride, padding=padding, dilation=dilation, groups=groups, accumulator=accumulator, pad=pad,
        matmul=reference,
    )  # fmt: skip


def check_codes(op: str, **operands: Any) -> None:
    """FormatError for an operand that is not of codes."""
    for name, x in operands.items():
        if x.dtype not in DTYPES:
            raise FormatError(f"{op}: {name} is {x.dtype}: expected int8, uint8 or int16 codes")


def _check_matmul(a: Any, b: Any, *, accumulator: Any = None) -> None:
    op = "integer_matmul"
    if accumulator is not None:
        as_accumulator(accumulator)
    if a.dtype not in DTYPES or b.dtype not in DTYPES:
        check_codes(op, a=a, b=b)
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError(f"{op}: expected two matrices or stacks of them, got {a.shape} @ {b.shape}")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"{op}: inner sizes differ: {a.shape} @ {b.shape}: {a.shape[-1]} != {b.shape[-2]}")
    if a.ndim == b.ndim == 2:
        return
    try:
        np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(f"{op}: stacks do not broadcast: {a.shape} @ {b.shape}") from None


def _check_conv2d(x: Any, weight: Any, **how: Any) -> None:
    check_conv2d("integer_conv2d", x, weight, **how)


def check_conv2d(
    op: str, x: Any, weight: Any, *, stride: Pair, padding: Pair, dilation: Pair, groups: int, accumulator: Any = None,
    pad: int = 0,
) -> None:  # fmt: skip
    """FormatError, ShapeError or ArgumentError for what is no convolution of codes."""
    as_accumulator(accumulator)
    check_codes(op, x=x, weight=weight)
    check_axes(op, "x", x.shape)
    if weight.ndim != 4:
        raise ShapeError(f"{op}: weight has shape {weight.shape}: expected 4 axes (out, in / groups, height, width)")
    if not isinstance(groups, int) or groups < 1:
        raise ArgumentError(f"{op}: groups={groups!r}: expected a whole number of at least 1")
    if weight.shape[0] % groups or x.shape[1] != weight.shape[1] * groups:
        raise ShapeError(f"{op}: channels differ: x {x.shape}, weight {weight.shape}, groups={groups}")
    info = np.iinfo(x.dtype)
    if not isinstance(pad, int) or not info.min <= pad <= info.max:
        raise ArgumentError(f"{op}: pad={pad!r}: expected a whole number that {x.dtype} holds")
    check_windows(op, x.shape[2:], weight.shape[2:], stride, padding, dilation)


def largest_product(x1: Any, x2: Any) -> int:
    """The largest magnitude of a product of codes of these dtypes."""
    return math.prod(max(-int(np.iinfo(d).min), int(np.iinfo(d).max)) for d in (x1, x2))


def fits_int64(accumulator: Accumulator, k: int, x1: Any, x2: Any) -> bool:
    """Whether every step stays within 64 bits for codes of these dtypes: what compiled loops without wider integers need."""
    total = min(accumulator.chunk, max(1, k)) * largest_product(x1, x2)
    if accumulator.shift > 0:
        return total + 2**accumulator.shift < 2**62 and accumulator.bits <= 63
    more = total << -accumulator.shift
    chunks = -(-max(1, k) // accumulator.chunk)
    return more < 2**62 and (accumulator.bits <= 63 or more * chunks < 2**63)


def taps(weight: Any) -> int:
    """Products per result of a convolution."""
    return math.prod(weight.shape[1:])


def accumulators() -> Iterable[Accumulator]:
    """Widths, shifts, every rounding, overflow and kind of chunk, one for each sample; those that raise have room."""
    for i, rounding in enumerate(ROUNDINGS):
        overflow = OVERFLOWS[i % 3]
        yield Accumulator(
            9 + 3 * i + 10 * (overflow == "raise"), 3 + i // 2, overflow, rounding, (1, 2, 3, 16, 17, 64)[i]
        )
    yield Accumulator(40, 0, "saturate", chunk=1)
    yield Accumulator(24, -3, "saturate", chunk=5)
    yield Accumulator(64, -40, "saturate")


def _matmul_samples() -> Iterable[Sample]:
    rng = np.random.default_rng(0)

    def pair(a: Shape, b: Shape, dtype: Any, accumulator: Any, name: str) -> Sample:
        info = np.iinfo(dtype)
        right = rng.integers(info.min, info.max + 1, b).astype(dtype)
        return Sample((rng.integers(-300, 300, a) / 1.0, right), {"accumulator": accumulator}, name)

    for dtype in DTYPES:
        yield pair((2, 3), (3, 4), dtype, None, "small")
        yield pair((17, 33), (33, 35), dtype, "int64", "odd sizes")
        yield pair((2, 3, 5, 7), (3, 7, 4), dtype, "int32", "stacks broadcast")
    yield pair((3, 1100), (1100, 40), np.int16, None, "across blocks")
    yield pair((15, 700), (700, 17), np.int16, "int64", "across blocks, exact")
    edges: list[tuple[Shape, Shape]]
    edges = [((1, 1), (1, 1)), ((0, 3), (3, 4)), ((3, 4), (4, 0)), ((3, 0), (0, 4)), ((0, 5, 7), (7, 3))]
    for left, right in edges:
        yield pair(left, right, np.int8, None, f"{left} @ {right}")
        yield pair(left, right, np.int8, Accumulator(16, 4), f"{left} @ {right}, 16 bits")
    for value, how in ((-32768.0, None), (-32768.0, "int64"), (32767.0, Accumulator(20, 6, chunk=10))):
        for dtype in DTYPES:
            least = np.full((300, 3), np.iinfo(dtype).min or np.iinfo(dtype).max, dtype)
            yield Sample((np.full((3, 300), value), least), {"accumulator": how}, f"all {value:g}")
    for i, accumulator in enumerate(accumulators()):
        a, b = (rng.integers(-20, 20, shape) for shape in ((2, 37), (37, 18)))
        if accumulator.overflow != "raise":
            a, b = a * 300, b * 5
        dtype = DTYPES[i % 3]
        b = np.clip(b, np.iinfo(dtype).min, np.iinfo(dtype).max)
        yield Sample((a / 1.0, b.astype(dtype)), {"accumulator": accumulator}, str(accumulator))


#        x              weight         stride  padding dilation groups pad  what it is
CASES = (
    ((2, 3, 7, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0, "same"),
    ((2, 4, 9, 11), (6, 2, 3, 2), (2, 3), (1, 2), (1, 1), 2, 7, "strides, even kernel, groups, pad"),
    ((1, 2, 10, 9), (3, 2, 3, 3), (1, 2), (2, 3), (2, 3), 1, 0, "dilation"),
    ((2, 5, 6, 6), (5, 1, 3, 3), (1, 1), (1, 1), (1, 1), 5, 3, "depthwise"),
    ((2, 19, 3, 4), (5, 19, 1, 1), (1, 1), (0, 0), (1, 1), 1, 0, "1x1"),
    ((2, 3, 7, 8), (2, 3, 1, 1), (2, 3), (0, 0), (1, 1), 1, 0, "1x1 with strides"),
    ((2, 2, 5, 5), (3, 2, 1, 1), (1, 1), (2, 1), (1, 1), 1, 9, "1x1 on padding"),
    ((1, 3, 5, 6), (2, 3, 5, 6), (1, 1), (0, 0), (1, 1), 1, 0, "kernel as large as the image"),
    ((1, 1, 30, 40), (2, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0, "an image of several blocks"),
    ((0, 3, 5, 5), (2, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0, "empty batch"),
    ((2, 3, 5, 5), (0, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0, "no outputs"),
    ((2, 0, 5, 5), (2, 0, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0, "no channels"),
    ((3, 17, 4, 4), (7, 17, 3, 2), (1, 1), (1, 1), (1, 1), 1, 3, "small images of many channels"),
    ((1, 24, 5, 6), (4, 12, 3, 2), (2, 1), (1, 2), (1, 2), 2, 5, "groups of many channels, dilation"),
    ((3, 20, 4, 3), (5, 20, 1, 1), (1, 1), (0, 0), (1, 1), 1, 0, "1x1 on small images of many channels"),
    ((2, 9, 34, 31), (2, 9, 3, 3), (1, 1), (1, 1), (1, 1), 1, 0, "images of several blocks, many channels"),
)  # fmt: skip


def _conv2d_samples() -> Iterable[Sample]:
    rng = np.random.default_rng(0)
    chosen = (Accumulator(12, 4), Accumulator(20, 3, "wrap", "up", 5), Accumulator(40, 1, "saturate", "to_odd", 16))
    for i, (x, weight, stride, padding, dilation, groups, pad, name) in enumerate(CASES):
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        for accumulator in (None, chosen[i % 3]) if math.prod(x) < 1000 else ("int64",):
            dtype = DTYPES[i % 3]
            filters = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, weight).astype(dtype)
            yield Sample(
                (rng.integers(-200, 300, x) / 1.0, filters), {**geometry, "accumulator": accumulator, "pad": pad}, name
            )


def result_format(accumulator: Any) -> Format:
    """int32, or int64 for accumulators wider than that."""
    return int32 if as_accumulator(accumulator).bits <= 32 else int64


def _result(*_: Format | None, accumulator: Any = None, **__: Any) -> Format:
    return result_format(accumulator)


def _products(a: Any, b: Any) -> float:
    return float(math.prod(np.broadcast_shapes(a.shape[:-2], b.shape[:-2])) * a.shape[-2] * a.shape[-1] * b.shape[-1])


def _conv2d_flops(x: Any, weight: Any, *, stride: Pair, padding: Pair, dilation: Pair, **_: Any) -> float:
    positions = output_size(x.shape[2:], weight.shape[2:], stride, padding, dilation)
    return 2.0 * x.shape[0] * math.prod(weight.shape) * math.prod(positions)


def _needs_wide(k: int, x1: Any, x2: Any, accumulator: Any) -> tuple[Accumulator, bool, bool]:
    """The accumulator; whether 64 bits do not hold all steps; and whether it sees several sums for a result."""
    chosen = as_accumulator(accumulator)
    plain = chosen in (INT32, INT64)
    return chosen, not plain and not fits_int64(chosen, k, x1.dtype, x2.dtype), chosen.chunk < k


def conv2d_key(x: Any, weight: Any, *, accumulator: Any = None, **geometry: Any) -> Any:
    """Rungs of a GPU choose by sizes too."""
    wide = _needs_wide(taps(weight), x, weight, accumulator)
    return wide if x.__class__ is np.ndarray else (wide, x.shape, weight.shape, tuple(geometry.items()))


# The first operand alone "takes part" in promotion, which leaves every operand in its own format.
integer_matmul = Op(
    "integer_matmul",
    "(a: [..., m, k], b: [..., k, n], *, accumulator=None) -> [..., m, n]",
    lambda a, b, *, accumulator=None: reference(a, b, accumulator),
    doc="Products of int8, uint8 and int16 codes, mixed at will, exact to the bit. accumulator: None or 'int32' (wraps in two's "
    "complement once |sums| pass 2^31), 'int64' (exact), or an Accumulator.",
    check=_check_matmul,
    result=_result,
    formats=FORMATS,
    promote=(0,),
    flops=lambda a, b, **_: 2 * _products(a, b),
    samples=_matmul_samples,
    key=lambda a, b, *, accumulator=None: accumulator and _needs_wide(a.shape[-1], a, b, accumulator),
)

integer_conv2d = Op(
    "integer_conv2d",
    "(x: [n, c, h, w], weight: [o, c/groups, kh, kw], *, stride, padding, dilation, groups, accumulator=None, pad=0) "
    "-> [n, o, oh, ow]",
    _conv2d,
    doc="Convolution of int8, uint8 and int16 codes, mixed at will; products are added in the order (channel, row, column) of "
    "the filter. `pad` is the code that padding holds (a zero point), as part of the sums. accumulator: as in integer_matmul.",
    check=_check_conv2d,
    result=_result,
    formats=FORMATS,
    promote=(0,),
    flops=_conv2d_flops,
    samples=_conv2d_samples,
    key=conv2d_key,
)

__all__ = [
    "EXACT_BYTES", "FORMATS", "check_codes", "check_conv2d", "conv2d_by_matmul", "conv2d_key", "fits_int64", "integer_conv2d",
    "integer_matmul", "largest_product", "overflowed", "reference", "result_dtype", "result_format", "taps",
]  # fmt: skip
