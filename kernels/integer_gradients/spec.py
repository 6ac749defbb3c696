"""The gradients of an integer convolution as sums of products in a chosen accumulator: what they are, and what they cost.

Both are products of matrices once it is written out which value meets which (`conv/columns`). That order is the definition, for
accumulators that round or have limits: a pixel's sum goes through the filters' (output, row, column), with zeros where a tap
brings nothing; a weight's through (image, row, column) of g, with zeros where it met padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.errors import AccumulatorError
from ulpgrad.formats import Array, Format
from ulpgrad.kernels.conv import axes, spec as conv
from ulpgrad.kernels.conv.columns import gather, spread
from ulpgrad.kernels.conv.geometry import IMAGES, Pair, output_size
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.integer.accumulator import Accumulator, as_accumulator, is_plain
from ulpgrad.kernels.spec import Op, Sample

FORMATS, DTYPES = integer.FORMATS, integer.DTYPES
MatMul = Callable[[Any, Any], Any]
Columns = Callable[..., Any]


def brought(g: Any, weight: Any, size: Pair, groups: int, xp: Any, **geometry: Any) -> tuple[Any, Any]:
    """Matrices whose product is the gradient with respect to x: [groups, c, o kh kw] and [n, groups, o kh kw, h w]."""
    (n, o), (_, c, kh, kw) = g.shape[:2], weight.shape
    filters = weight.reshape(groups, o // groups, c, kh, kw).transpose(0, 2, 1, 3, 4)
    columns = xp.zeros((n, o, kh, kw, *size), g.dtype)
    spread(columns, g, **geometry)
    per = o // groups * kh * kw
    return filters.reshape(groups, c, per), columns.reshape(n, groups, per, math.prod(size))


def columns(x: Any, size: Pair, xp: Any = np, **geometry: Any) -> Any:
    """[c, kh, kw, n, oh, ow]: what each tap meets at each position, 0 where that is padding."""
    positions = output_size(x.shape[2:], size, geometry["stride"], geometry["padding"], geometry["dilation"])
    found = xp.zeros((x.shape[1], *size, len(x), *positions), x.dtype)
    gather(found.transpose(3, 0, 1, 2, 4, 5), x, **geometry)
    return found


def met(g: Any, x: Any, size: Pair, groups: int, columns: Columns = columns, **geometry: Any) -> tuple[Any, Any]:
    """Matrices whose product is the gradient with respect to weight: [groups, o, n oh ow] and [groups, n oh ow, c kh kw]."""
    (n, o, *positions), c = g.shape, x.shape[1]
    rows = g.transpose(1, 0, 2, 3).reshape(groups, o // groups, n * math.prod(positions))
    return rows, columns(x, size, **geometry).reshape(groups, c // groups * math.prod(size), rows.shape[2]).transpose(
        0, 2, 1
    )


def input_gradient(
    g: Any,
    weight: Any,
    matmul: MatMul,
    *,
    size: Pair,
    groups: int,
    accumulator: Any = None,
    xp: Any = np,
    **geometry: Any,
) -> Any:
    """The gradient with respect to x by a product of matrices."""
    left, right = brought(g, weight, size, groups, xp, **geometry)
    try:
        return matmul(left, right).reshape(len(g), weight.shape[1] * groups, *size)
    except AccumulatorError as error:
        image, group, channel, pixel = error.index
        index = (image, group * weight.shape[1] + channel, *divmod(pixel, size[1]))
        raise integer.overflowed(
            integer_conv2d_input_gradient.name, as_accumulator(accumulator), index, error.k
        ) from None


def weight_gradient(
    g: Any, x: Any, matmul: MatMul, *, size: Pair, groups: int, accumulator: Any = None, columns: Columns = columns,
    **geometry: Any,
) -> Any:  # fmt: skip
    """The gradient with respect to weight by a product of matrices."""
    left, right = met(g, x, size, groups, columns, **geometry)
    shape = (g.shape[1], x.shape[1] // groups, *size)
    try:
        return matmul(left, right).reshape(shape)
    except AccumulatorError as error:
        group, row, column = error.index
        place = np.unravel_index(column, shape[1:])
        index = (group * (shape[0] // groups) + row, *(int(i) for i in place))
        raise integer.overflowed(
            integer_conv2d_weight_gradient.name, as_accumulator(accumulator), index, error.k
        ) from None


def _reference(by: Callable[..., Any], first: Array, second: Array, *, accumulator: Any = None, **params: Any) -> Array:
    found: Array = by(
        first, second, partial(integer.reference, accumulator=accumulator), accumulator=accumulator, **params
    )
    return found


def _input_reference(g: Array, weight: Array, **params: Any) -> Array:
    return _reference(input_gradient, g, weight, **params)


def _weight_reference(g: Array, x: Array, **params: Any) -> Array:
    return _reference(weight_gradient, g, x, **params)


def _check(
    op: str, check: Callable[..., None], names: tuple[str, str], first: Any, second: Any, *, accumulator: Any = None,
    **geometry: Any,
) -> None:  # fmt: skip
    as_accumulator(accumulator)
    integer.check_codes(op, **dict(zip(names, (first, second), strict=True)))
    check(op, IMAGES, first, second, **geometry)


def taps_met(kernel: int, stride: int, dilation: int) -> int:
    """How many taps along one axis bring something to one pixel, at most."""
    return -(-kernel // (stride // math.gcd(stride, dilation)))


def input_terms(outputs: int, kernel: Sequence[int], *, stride: Pair, dilation: Pair, groups: int, **_: Any) -> int:
    """Products in a sum of the gradient with respect to x, at most."""
    met = (taps_met(*axis) for axis in zip(kernel, stride, dilation, strict=True))
    return outputs // groups * math.prod(met)


def weight_terms(g: Any) -> int:
    """Products in a sum of the gradient with respect to weight."""
    return g.shape[0] * math.prod(g.shape[2:])


def _key(first: Any, second: Any, *, accumulator: Any = None, **params: Any) -> Any:
    """Whether sums are free in their order; the products within choose by themselves. Rungs of a GPU look at all."""
    plain = is_plain(accumulator)
    if first.__class__ is np.ndarray:
        return plain
    return plain, as_accumulator(accumulator), first.shape, second.shape, tuple(params.items())


def _samples(of_weight: bool) -> Iterator[Sample]:
    """Every geometry of the floats' convolution that is not large, codes of the whole range, and accumulators."""
    rng = np.random.default_rng(0)
    chosen = (Accumulator(14, 6), Accumulator(20, 3, "wrap", "up", 5), Accumulator(40, 1, "saturate", "to_odd", 16))

    def codes(shape: tuple[int, ...], dtype: Any) -> Array:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max + 1, shape).astype(dtype)

    for i, (x, weight, stride, padding, dilation, groups, name) in enumerate(conv.CASES):
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        positions = output_size(x[2:], weight[2:], stride, padding, dilation)
        g = rng.integers(-200, 300, (x[0], weight[0], *positions)) / 1.0
        second, size = (x, weight[2:]) if of_weight else (weight, x[2:])
        hows: Iterable[Any] = (None, chosen[i % 3]) if math.prod(x) < 1000 else ("int64",)
        for accumulator in hows:
            params = {"size": size, **geometry, "accumulator": accumulator}
            yield Sample((g, codes(second, DTYPES[i % 3])), params, name)


def _result(*_: Format | None, accumulator: Any = None, **__: Any) -> Format:
    return integer.result_format(accumulator)


# The first operand alone "takes part" in promotion, which leaves every operand in its own format.
integer_conv2d_input_gradient = Op(
    "integer_conv2d_input_gradient",
    "(g: [n, o, oh, ow], weight: [o, c/groups, kh, kw], *, size, stride, padding, dilation, groups, accumulator=None) "
    "-> [n, c, h, w]",
    _input_reference,
    doc="The gradient of integer_conv2d with respect to x, whose images have height and width `size`: transposed convolution of "
    "int8, uint8 and int16 codes. accumulator: as in integer_matmul; products are added in the order (output, row, column) of "
    "the filters.",
    check=partial(_check, "integer_conv2d_input_gradient", axes.check_input_gradient, ("g", "weight")),
    result=_result,
    formats=FORMATS,
    promote=(0,),
    flops=axes.input_gradient_flops,
    samples=partial(_samples, False),
    key=_key,
)

integer_conv2d_weight_gradient = Op(
    "integer_conv2d_weight_gradient",
    "(g: [n, o, oh, ow], x: [n, c, h, w], *, size, stride, padding, dilation, groups, accumulator=None) "
    "-> [o, c/groups, kh, kw]",
    _weight_reference,
    doc="The gradient of integer_conv2d with respect to weight, whose filters have height and width `size`, of int8, uint8 and "
    "int16 codes. accumulator: as in integer_matmul; products are added in the order (image, row, column) of g.",
    check=partial(_check, "integer_conv2d_weight_gradient", axes.check_weight_gradient, ("g", "x")),
    result=_result,
    formats=FORMATS,
    promote=(0,),
    flops=axes.weight_gradient_flops,
    samples=partial(_samples, True),
    key=_key,
)

__all__ = [
    "FORMATS", "brought", "columns", "input_gradient", "input_terms", "integer_conv2d_input_gradient",
    "integer_conv2d_weight_gradient", "met", "taps_met", "weight_gradient", "weight_terms",
]  # fmt: skip
