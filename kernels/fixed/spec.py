"""Sums, products, quotients and rescalings of fixed-point codes, each exact until it is cut to the result's word.

Operands are stored codes of any integer format, in any mixture; where the radix points lie is said by `left` and `right`
(zeros that an operand gains) and by the cut. Source: two's complement arithmetic with a binary point, as in IEEE 1666 (SystemC),
section 7.10, whose quantisation and overflow modes are among these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ShapeError
from ulpgrad.formats import INTEGERS, Array, Format, bool_, int8, int16, int32
from ulpgrad.formats.rounding import ROUNDINGS
from ulpgrad.kernels.conv.geometry import output_size
from ulpgrad.kernels.elementwise.spec import check_broadcast
from ulpgrad.kernels.fixed.cut import Cut, applied, limited, quotient
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.spec import Op, Sample

SIGNS = ("keep", "negate", "absolute")


def wide(*arrays: Array) -> tuple[list[Array], tuple[int, ...]]:
    """Operands as rows of Python integers, and the shape they broadcast to."""
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    return [np.broadcast_to(a, shape).reshape(-1).astype(object) for a in arrays], shape


def shaped(result: Any, shape: tuple[int, ...]) -> Any:
    """Rows back in their shape."""
    return tuple(r.reshape(shape) for r in result) if isinstance(result, tuple) else result.reshape(shape)


def _row(words: Array | None) -> Array | None:
    return None if words is None else words.reshape(-1)


def _add(
    a: Array, b: Array, words: Array | None, *, left: int, right: int, subtract: bool, cut: Cut
) -> Array | tuple[Array, Array]:
    (a, b), shape = wide(a, b)
    b = b << right
    return shaped(applied((a << left) + (-b if subtract else b), cut, _row(words)), shape)


def _multiply(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
    (a, b), shape = wide(a, b)
    return shaped(applied(a * b, cut, _row(words)), shape)


def _divide(a: Array, b: Array, words: Array | None, *, left: int, right: int, cut: Cut) -> Any:
    (a, b), shape = wide(a, b)
    codes, outside = limited(quotient(a << left, b << right, cut, _row(words)), cut)
    return shaped(codes if outside is None else (codes, outside), shape)


def _rescale(x: Array, words: Array | None, *, sign: str, cut: Cut) -> Any:
    (x,), shape = wide(x)
    x = -x if sign == "negate" else np.abs(x) if sign == "absolute" else x
    return shaped(applied(x, cut, _row(words)), shape)


def _matmul(a: Array, b: Array, words: Array | None, *, cut: Cut) -> Any:
    product = np.matmul(a.astype(object), b.astype(object))
    return shaped(applied(product.reshape(-1), cut, _row(words)), product.shape)


def _conv2d(
    x: Array, weight: Array, bias: Array | None, words: Array | None, *, left: int, right: int, cut: Cut, **how: Any
) -> Any:
    sums = integer.integer_conv2d.reference(x, weight, **how).astype(object) << left
    if bias is not None:
        sums = sums + (bias.astype(object) << right)[:, None, None]
    return shaped(applied(sums.reshape(-1), cut, _row(words)), sums.shape)


def _check_words(name: str, shape: tuple[int, ...], words: Array | None, cut: Cut) -> None:
    if cut.rounding == "stochastic" and (words is None or words.shape != shape):
        given = "none" if words is None else f"shape {words.shape}"
        raise ShapeError(f"{name}: stochastic rounding needs random words of shape {shape}, got {given}")


def _check_binary(name: str) -> Callable[..., None]:
    def check(a: Array, b: Array, words: Array | None, *, cut: Cut, **_: Any) -> None:
        if a.shape != b.shape:
            check_broadcast(name, a, b)
        if cut.rounding == "stochastic":
            _check_words(name, np.broadcast_shapes(a.shape, b.shape), words, cut)

    return check


def _check_rescale(x: Array, words: Array | None, *, sign: str, cut: Cut) -> None:
    _check_words("fixed_rescale", x.shape, words, cut)


def _check_matmul(a: Array, b: Array, words: Array | None, *, cut: Cut) -> None:
    if a.ndim < 2 or b.ndim < 2:
        raise ShapeError(f"matmul: expected at least two dimensions each, got {a.shape} @ {b.shape}")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(f"matmul: inner sizes differ: {a.shape} @ {b.shape}: {a.shape[-1]} != {b.shape[-2]}")
    check_broadcast("matmul", np.empty((*a.shape[:-2], 0)), np.empty((*b.shape[:-2], 0)))
    _check_words("fixed_matmul", matmul_shape(a, b), words, cut)


def matmul_shape(a: Array, b: Array) -> tuple[int, ...]:
    """The shape of a @ b."""
    return (*np.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])


def _check_conv2d(
    x: Any, weight: Any, bias: Any, words: Any, *, left: int, right: int, cut: Cut, accumulator: Any = None, pad: int = 0,
    groups: int, **geometry: Any,
) -> None:  # fmt: skip
    integer.check_conv2d("fixed_conv2d", x, weight, accumulator=accumulator, pad=pad, groups=groups, **geometry)
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ShapeError(f"fixed_conv2d: bias has shape {bias.shape}: expected {weight.shape[:1]}, one for each filter")
    positions = output_size(x.shape[2:], weight.shape[2:], **geometry)
    _check_words("fixed_conv2d", (x.shape[0], weight.shape[0], *positions), words, cut)


def _result(*_: Any, cut: Cut, **__: Any) -> Any:
    return (cut.out, bool_) if cut.report else cut.out


def _kind(*_: Any, cut: Cut, **__: Any) -> tuple[int, bool]:
    """Selection looks at how wide the intermediate values are, and whether the cut is the plain one."""
    return cut.width, cut.plain


def _kind_of_quotient(*_: Any, cut: Cut, **__: Any) -> tuple[int, bool]:
    """A quotient is rounded whether bits are dropped or not."""
    return cut.width, cut.plain and cut.rounding == "nearest_even"


# Samples; first operands are float64, which become whatever format is tested, clipped

A = np.array([[0, 1, -1, 2, -3], [5, -7, 100, 127, -128], [64, -64, 33, 15, -127]], np.float64)
B = np.array([[3, -2, 7, -128, 127], [1, 1, -1, 5, -5], [100, 64, -64, 2, 9]], np.int8)
WORDS = np.random.default_rng(0).integers(0, 2**32, A.shape, dtype=np.uint32)


def _cuts(drop: int, most: int) -> Iterator[tuple[Cut, str]]:
    """Cuts over all modes; `most` bounds what the samples come to, in any format that they are given in."""
    for rounding in ROUNDINGS:
        for wrap in (False, True):
            name = f"{rounding}, {'wraps' if wrap else 'saturates'}"
            yield Cut(drop, -50, 49 + 28 * wrap, int8, rounding, wrap, 7, False, -most, most), name
    yield Cut(drop, -(2**15), 2**15 - 1, int16, report=True, least=-most, most=most), "reported"
    yield Cut(-3, -(2**31), 2**31 - 1, int32, least=-most, most=most), "gains zeros"
    yield Cut(drop, -50, 77, int8, "nearest_away", True, 7, True, -(2**100), 2**100), "needs 128 bits"
    yield Cut(drop, -50, 77, int8, "up", True, 7, True, -(2**200), 2**200), "needs more bits than there are"


def _samples(name: str) -> Iterator[Sample]:
    for cut, what in _cuts(5, 2**24):
        words = WORDS if cut.rounding == "stochastic" else None
        if name == "fixed_rescale":
            for sign in SIGNS:
                yield Sample((A, words), {"sign": sign, "cut": cut}, f"{sign}: {what}")
        elif name == "fixed_add":
            yield Sample((A, B, words), {"left": 2, "right": 3, "subtract": cut.wrap, "cut": cut}, what)
        elif name == "fixed_multiply":
            yield Sample((A, B, words), {"cut": cut}, what)
        elif name == "fixed_divide":
            yield Sample((A, B, words), {"left": 6, "right": 1, "cut": cut}, what)
        else:
            square = None if words is None else np.ascontiguousarray(words[:, :3])
            yield Sample((A, B.T, square), {"cut": cut}, what)
    cut = Cut(2, -128, 127, int8, least=-(2**20), most=2**20)
    empty, one = np.zeros((0, 3)), np.array(77.0)
    more = {"left": 1, "right": 0}
    if name == "fixed_rescale":
        yield Sample((empty, None), {"sign": "keep", "cut": cut}, "empty")
        yield Sample((one, None), {"sign": "negate", "cut": cut}, "0-d")
    elif name == "fixed_matmul":
        yield Sample((empty, np.ones((3, 2), np.int8), None), {"cut": cut}, "no rows")
        yield Sample((np.zeros((2, 0)), np.ones((0, 2), np.int8), None), {"cut": cut}, "sums of nothing")
        yield Sample((np.stack([A, -A]), B.T.astype(np.int16), None), {"cut": cut}, "stack")
    else:
        params = {"cut": cut} | ({} if name == "fixed_multiply" else more)
        params |= {"subtract": False} if name == "fixed_add" else {}
        yield Sample((empty, np.ones(3, np.int16), None), params, "empty")
        yield Sample((one, np.array(-3, np.int32), None), params, "0-d")
        yield Sample((A, np.array([[7], [-9], [11]], np.int16), None), params, "mixed words, columns")


def _conv2d_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    (small, strided, *_), first = integer.CASES, True
    for cut, what in _cuts(9, 2**26):
        shape, filters, stride, padding, dilation, groups, pad, name = small if first else strided
        how = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "pad": pad}
        x, weight = rng.integers(-200, 300, shape) / 1.0, rng.integers(-128, 128, filters, np.int8)
        bias = rng.integers(-(2**15), 2**15, filters[0]).astype(np.int16) if first or cut.report else None
        positions = output_size(shape[2:], filters[2:], stride, padding, dilation)
        words = rng.integers(0, 2**32, (shape[0], filters[0], *positions), dtype=np.uint32)
        drawn = words if cut.rounding == "stochastic" else None
        zeros = {"left": 0 if bias is None else 1, "right": 0 if bias is None else 5}
        yield Sample((x, weight, bias, drawn), {**how, **zeros, "cut": cut}, f"{name}, {what}")
        first = not first
    full = rng.integers(-(2**15), 2**15, (4, 17, 3, 2)).astype(np.int16)
    exact = {"stride": (1, 1), "padding": (1, 0), "dilation": (1, 1), "groups": 1, "left": 0, "right": 3}
    for rounding in ROUNDINGS:
        x = rng.integers(-(2**15), 2**15, (2, 17, 4, 5)) / 1.0
        words = rng.integers(0, 2**32, (2, 4, 4, 4), dtype=np.uint32)
        cut = Cut(19, -(2**15), 2**15 - 1, int16, rounding, rounding in ("up", "down"), 17, least=-(2**42), most=2**42)
        arrays = (x, full, np.array([2**30, -(2**31), 0, 77], np.int32), words if rounding == "stochastic" else None)
        yield Sample(arrays, {**exact, "accumulator": "int64", "cut": cut}, f"sums of 64 bits, {rounding}")
    plain = {
        **exact,
        "left": 0,
        "right": 0,
        "padding": (0, 0),
        "cut": Cut(2, -128, 127, int8, least=-(2**20), most=2**20),
    }
    for shape, filters in (((0, 3, 5, 5), (2, 3, 3, 3)), ((2, 3, 5, 5), (0, 3, 3, 3)), ((2, 0, 5, 5), (2, 0, 3, 3))):
        arrays = (np.ones(shape), np.ones(filters, np.int8), np.arange(7, 7 + filters[0]).astype(np.int8), None)
        yield Sample(arrays, plain, f"{shape} through {filters}")


def _op(
    name: str,
    signature: str,
    reference: Callable[..., Any],
    check: Callable[..., None],
    doc: str,
    key: Callable[..., tuple[int, bool]] = _kind,
) -> Op:
    return Op(
        name,
        signature,
        reference,
        doc=doc,
        check=check,
        result=_result,
        formats=INTEGERS,
        promote=(0,),  # no operand is converted; the tests give the first one every format
        flops=lambda a, *_, **__: a.size,
        samples=lambda: _samples(name),
        key=key,
    )


TAIL = "cut: Cut) -> codes of cut.out, and with cut.report where they did not fit"
add = _op(
    "fixed_add",
    f"(a, b, words | None, *, left: int, right: int, subtract: bool, {TAIL}",
    _add,
    _check_binary("fixed_add"),
    "a 2^left + b 2^right, or their difference, cut.",
)
multiply = _op(
    "fixed_multiply",
    f"(a, b, words | None, *, {TAIL}",
    _multiply,
    _check_binary("fixed_multiply"),
    "The product, cut.",
)
divide = _op(
    "fixed_divide",
    f"(a, b, words | None, *, left: int, right: int, {TAIL}",
    _divide,
    _check_binary("fixed_divide"),
    "a 2^left / (b 2^right), rounded once to a whole number. No b is zero.",
    _kind_of_quotient,
)
rescale = _op(
    "fixed_rescale",
    f"(x, words | None, *, sign: 'keep' | 'negate' | 'absolute', {TAIL}",
    _rescale,
    _check_rescale,
    "x, -x or |x|, cut.",
)
matmul = _op(
    "fixed_matmul",
    f"(a: [..., m, k], b: [..., k, n], words: [..., m, n] | None, *, {TAIL}",
    _matmul,
    _check_matmul,
    "Exact sums of products, each cut once.",
)
conv2d = Op(
    "fixed_conv2d",
    "(x: [n, c, h, w], weight: [o, c/groups, kh, kw], bias: [o] | None, words: [n, o, oh, ow] | None, *, stride, padding, "
    f"dilation, groups, accumulator=None, pad=0, left: int, right: int, {TAIL}",
    _conv2d,
    doc="A convolution of int8, uint8 and int16 codes (integer_conv2d), and its sums 2^left + bias 2^right, cut.",
    check=_check_conv2d,
    result=_result,
    formats=INTEGERS,
    promote=(0,),
    flops=lambda x, weight, bias, words, *, left, right, cut, **how: integer.integer_conv2d.flops(x, weight, **how),
    samples=_conv2d_samples,
    key=lambda x, weight, bias, words, *, left, right, cut, **how: (
        *_kind(cut=cut),
        integer.conv2d_key(x, weight, **how),
    ),
)


def int_format(dtype: Any) -> Format:
    """The integer format that a NumPy dtype is the storage of."""
    return next(f for f in INTEGERS if f.storage == dtype)


__all__ = ["SIGNS", "add", "conv2d", "divide", "int_format", "matmul", "matmul_shape", "multiply", "rescale"]
