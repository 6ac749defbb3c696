"""block_matmul: the product of two matrices in blocks that share powers of two (OCP Microscaling Formats 1.0), which lie along
the axis that is summed over: a sum over blocks of their scales' product times the sum of their elements' products."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError, ShapeError
from ulpgrad.formats import Array, Block, BlockArray, Float, Format, as_format, bfloat16, float16, float32, int8, uint8
from ulpgrad.kernels.matmul import spec as matmul_spec, strided
from ulpgrad.kernels.spec import Op, Sample

RESULTS = (float32, bfloat16, float16)


def is_narrow(form: Block) -> bool:
    """Whether bfloat16 has the significant bits of all elements, as units of a GPU want them."""
    return not isinstance(form.element, Float) or form.element.mantissa_bits <= 7


def values(codes: Array, scales: Array, form: Block, axis: int) -> Array:
    """What codes and scales stand for, in float64."""
    exact: Array = form.exact(BlockArray(codes, scales, axis % codes.ndim, form.size))
    return exact


def _product(
    a: Array, a_scales: Array, b: Array, b_scales: Array, *, a_format: Block, b_format: Block, dtype: Format = float32
) -> Array:
    return np.asarray(values(a, a_scales, a_format, -1) @ values(b, b_scales, b_format, -2))


def _magnitude(
    a: Array, a_scales: Array, b: Array, b_scales: Array, *, a_format: Block, b_format: Block, dtype: Format = float32
) -> Array:
    return np.asarray(abs(values(a, a_scales, a_format, -1)) @ abs(values(b, b_scales, b_format, -2)))


def _check(
    a: Any, a_scales: Any, b: Any, b_scales: Any, *, a_format: Block, b_format: Block, dtype: Format = float32
) -> None:
    matmul_spec.check_matmul(a, b)
    for name, form in (("a_format", a_format), ("b_format", b_format)):
        if not isinstance(form, Block):
            raise FormatError(f"block_matmul: {name}={form!r}: expected a block format")
    if a_format.size != b_format.size:
        raise FormatError(
            f"block_matmul: blocks of {a_format.size} times blocks of {b_format.size}: expected one size of blocks"
        )
    if dtype not in RESULTS:
        raise FormatError(f"block_matmul: dtype={dtype}: expected one of {', '.join(f.name for f in RESULTS)}")
    count = -(-a.shape[-1] // a_format.size)
    for name, given, wanted in (("a", a_scales.shape, (*a.shape[:-1], count)),
                                ("b", b_scales.shape, (*b.shape[:-2], count, b.shape[-1]))):  # fmt: skip
        if given != wanted:
            raise ShapeError(f"block_matmul: scales of {name} have shape {given}: expected {wanted}")


#       a        b         what it is
SHAPES = (
    ((2, 3), (3, 4), "small"),
    ((1, 1), (1, 1), "one value"),
    ((0, 3), (3, 4), "no rows"),
    ((3, 40), (40, 0), "no columns"),
    ((3, 0), (0, 4), "nothing to sum"),
    ((16, 64), (64, 32), "whole blocks"),
    ((1, 70), (70, 33), "one row, a short last block"),
    ((37, 100), (100, 1), "one column"),
    ((2, 3, 5, 96), (3, 96, 7), "stacks broadcast"),
    ((2, 5, 64), (64, 9), "one matrix for a stack"),
    ((70, 300), (300, 45), "odd sizes"),
    ((256, 64), (64, 256), "many results"),
)


def _block(name: str) -> Block:
    form = as_format(name)
    assert isinstance(form, Block)
    return form


def _coded(rng: Any, shape: tuple[int, ...], form: Block, axis: int) -> tuple[Array, Array]:
    spread = rng.standard_normal(shape) * 2.0 ** rng.integers(-6, 6, shape)
    stored = form.encode(spread * 2.0 ** rng.integers(-20, 20, (*shape[:-2], 1, 1)), axis=axis)
    return stored.codes, stored.scales


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    e4m3, e5m2 = _block("mxfp8_e4m3"), _block("mxfp8_e5m2")
    pairs = [(e4m3, e4m3), (e5m2, e4m3), (e5m2, e5m2)]
    for i, (a, b, name) in enumerate(SHAPES):
        left, right = pairs[i % 3]
        arrays = (*_coded(rng, a, left, -1), *_coded(rng, b, right, -2))
        dtype = RESULTS[i // 3 % 3] if name != "many results" else float32
        yield Sample(
            arrays, {"a_format": left, "b_format": right, "dtype": dtype}, f"{name}, {left} {right} to {dtype}"
        )
    for form in (_block("mxint8"), _block("mxfp4_e2m1"), Block(e4m3.element, 64), _block("mxfp6_e3m2")):
        arrays = (*_coded(rng, (20, 100), form, -1), *_coded(rng, (100, 24), form, -2))
        yield Sample(arrays, {"a_format": form, "b_format": form}, f"{form}")
    codes, scales = _coded(rng, (20, 100), e4m3, -1)
    scales[3, 1], scales[4, 3], scales[5] = 255, 255, 40
    codes[6, 5] = 0x7F
    yield Sample(
        (codes, scales, *_coded(rng, (100, 24), e4m3, -2)), {"a_format": e4m3, "b_format": e4m3}, "blocks of NaN"
    )


def _key(
    a: Any, a_scales: Any, b: Any, b_scales: Any, *, a_format: Block, b_format: Block, dtype: Format = float32
) -> Any:
    return a_format, b_format, dtype, strided.of_product(a, b), math.prod(a.shape[:-1]) >= MANY and b.shape[-1] >= MANY


MANY = 256  # rows and columns of results from which it pays to write operands once in another format

block_matmul = Op(
    "block_matmul",
    "(a: [..., m, k] codes, a_scales: [..., m, ceil(k / size)], b: [..., k, n] codes, b_scales: [..., ceil(k / size), n], *, "
    "a_format, b_format, dtype=float32) -> [..., m, n]",
    doc="The product of block floats (mxfp8_e4m3, ...), summed in float32 and rounded once to dtype: float32, bfloat16 or "
    "float16. Stacks broadcast. What is right holds where float32 has the products of elements and scales. A "
    "result of 16 bits may come from units that sum the products of one block in about 14 bits.",
    reference=_product,
    check=_check,
    result=lambda *_, dtype=float32, **__: dtype,
    formats=(uint8, int8),
    promote=False,
    flops=lambda a, a_scales, b, b_scales, **_: matmul_spec.matmul_flops(a, b),
    samples=_samples,
    ulps={float32: 8},  # sums of float32 in any order, of products that scales set far apart
    magnitude=_magnitude,
    key=_key,
)

__all__ = ["MANY", "RESULTS", "block_matmul", "is_narrow", "values"]
