"""quantize: values to codes of any format, rounded once in the mode asked for. fake_quantize: the same, but the values
themselves come back, on the format's grid. Element i of a stochastic rounding takes word i of the Philox stream that starts
at block `counter`, so that its bits hang on nothing else. block_quantize and block_dequantize: to and from elements that
share a power of two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import (
    FLOATS,
    FORMATS,
    INTEGERS,
    Affine,
    Array,
    Block,
    BlockArray,
    Fixed,
    Format,
    Q,
    Random,
    as_format,
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    uint8,
)
from ulpgrad.formats.rounding import RANDOM_BITS, ROUNDINGS, check
from ulpgrad.kernels.random import philox
from ulpgrad.kernels.spec import Op, Sample, first

SOURCES = (float16, bfloat16, float32, float64, *INTEGERS)
OPTIONS: dict[str, Any] = {
    "rounding": "nearest_even", "overflow": None, "subnormals": True, "key": 0, "counter": 0, "random_bits": RANDOM_BITS,
}  # fmt: skip


def random_words(rounding: str, key: int, counter: int, random_bits: int, shape: tuple[int, ...]) -> Random | None:
    """What a stochastic rounding draws from; None for other modes."""
    check(rounding, random_bits)
    if rounding != "stochastic":
        return None
    return Random(philox.words(key, counter, int(np.prod(shape, dtype=np.int64))).reshape(shape), random_bits)


def encoded(x: Array, *, dtype: Format, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
            random_bits: int) -> Any:  # fmt: skip
    """Codes by the format's own `encode`: the definition."""
    drawn = random_words(rounding, key, counter, random_bits, x.shape)
    return dtype.encode(x, rounding, overflow, subnormals, drawn)


def _reference(x: Array, **options: Any) -> Array:
    dtype: Format = options["dtype"]
    return dtype.exact(encoded(x, **options))


def _check(x: Array, *, dtype: Format, rounding: str, overflow: str | None, subnormals: bool, key: int, counter: int,
           random_bits: int) -> None:  # fmt: skip
    if not isinstance(dtype, Format) or dtype.kind not in ("float", "fixed", "affine"):
        raise FormatError(f"quantize: dtype={dtype!r}: expected a float, fixed-point or affine format")
    check(rounding, random_bits)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    special = np.array(
        [0.0, -0.0, 1e-40, 1e-46, 6e-8, 65504, 65520, 448, 464, 465, 57344, 61440, 1 + 2**-4 + 2**-40, -1.5, -1e9]
    )
    wild = np.append(special, [np.inf, -np.inf])
    names = "float8_e4m3fn float8_e5m2 bfloat16 float16 float6_e3m2fn float4_e2m1fn float8_e4m3fnuz e6m9 binary8p3se"
    targets = [as_format(name) for name in names.split()]
    fixed = [Q(7, 8), Q(3, 4), Q(0, 7), Q(5, 10), Q(8, 8, signed=False), Q(11, 20)]
    for dtype in (*targets, *fixed):
        spread = rng.standard_normal((7, 33)) * 4.0
        for rounding in ROUNDINGS if dtype in (targets[0], fixed[0]) else ("nearest_even", "stochastic"):
            options = OPTIONS | {"dtype": dtype, "rounding": rounding, "key": 7, "counter": 3}
            yield Sample((spread,), options, f"{dtype}, {rounding}")
            yield Sample((wild,), options | {"overflow": "saturate"}, f"special values to {dtype}, {rounding}")
    for dtype in targets:
        yield Sample((wild,), OPTIONS | {"dtype": dtype}, f"special values to {dtype}, ieee")
        yield Sample((wild,), OPTIONS | {"dtype": dtype, "subnormals": False}, f"{dtype}, flushed")
    for dtype in fixed:
        yield Sample(
            (special.clip(-4000, 4000) * 16,), OPTIONS | {"dtype": dtype, "overflow": "wrap"}, f"{dtype}, wrapped"
        )
    for base, zero_point in (("int8", 0), ("int8", -128), ("uint8", 0), ("uint8", 131)):
        dtype = Affine(base, 0.25, zero_point)
        yield Sample((rng.integers(-999, 999, (3, 67)) / 8,), OPTIONS | {"dtype": dtype}, f"{dtype}, with ties")
        yield Sample((wild,), OPTIONS | {"dtype": dtype}, f"special values to {dtype}")
        for axis, size in ((0, (3, 40)), (1, (5, 67)), (1, (2, 3, 33))):
            dtype = Affine(base, rng.uniform(0.01, 0.02, size[axis]), np.full(size[axis], zero_point), axis)
            yield Sample((rng.standard_normal(size),), OPTIONS | {"dtype": dtype}, f"{size} to {dtype}")
    for shape in ((), (0,), (1,), (3, 5), (2, 0, 3)):
        yield Sample((np.asarray(rng.standard_normal(shape)),), OPTIONS | {"dtype": targets[0]}, f"shape {shape}")


def _key(x: Array, *, dtype: Format, rounding: str, overflow: str | None, subnormals: bool, **_: Any) -> Any:
    return dtype, rounding, overflow, subnormals


quantize = Op(
    "quantize",
    "(x: [...], *, dtype, rounding, overflow, subnormals, key, counter, random_bits) -> [...] codes of dtype",
    _reference,
    check=_check,
    result=lambda *_, dtype, **__: dtype,
    formats=SOURCES,
    samples=_samples,
    ulps=dict.fromkeys(FLOATS, 0),
    key=_key,
)

fake_quantize = Op(
    "fake_quantize",
    "(x: [...], *, dtype, rounding, overflow, subnormals, key, counter, random_bits) -> [...] values of dtype, in x's format",
    _reference,
    check=_check,
    result=first,
    formats=(float32, float64),
    samples=_samples,
    ulps={float32: 0.5, float64: 0},
    key=_key,
)


def blocks(x: Array, *, dtype: Block, axis: int, rounding: str, overflow: str | None, subnormals: bool, key: int,
           counter: int, random_bits: int) -> tuple[Array, Array]:  # fmt: skip
    """Codes and scales by the format's own `encode`: the definition."""
    drawn = random_words(rounding, key, counter, random_bits, x.shape)
    stored = dtype.encode(x, rounding, overflow, subnormals, drawn, axis=axis)
    return stored.codes, stored.scales


def _check_blocks(x: Array, *, dtype: Block, axis: int, rounding: str, overflow: str | None, subnormals: bool, key: int,
                  counter: int, random_bits: int) -> None:  # fmt: skip
    if not isinstance(dtype, Block):
        raise FormatError(f"block_quantize: dtype={dtype!r}: expected a block format")
    check(rounding, random_bits)
    if x.ndim == 0:
        raise FormatError(f"{dtype.name}: a 0-d tensor has no axis to make blocks on; reshape it to (1,)")
    if not -x.ndim <= axis < x.ndim:
        raise ArgumentError(f"{dtype.name}: axis {axis} is outside a tensor of {x.ndim} dimensions")
    if overflow not in (None, "saturate"):
        raise ArgumentError(f"{dtype.name}: overflow={overflow!r}: elements of a block are always clamped ('saturate')")


BLOCKS = tuple(form for form in FORMATS.values() if isinstance(form, Block))


def _block_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    spread = rng.standard_normal((3, 75)) * 2.0 ** rng.integers(-20, 20, (3, 75))
    edges = rng.standard_normal((9, 32))
    largest = (2.0**100 * (1 - 2.0**-24), np.nan, np.inf, 0.0, 2.0**-127, 2.0**-149, 2.0**-3, 3.4028234e38, -np.inf)
    for row, value in zip(edges, largest, strict=True):
        row[:] = row * 1e-3 * (value if np.isfinite(value) else 1.0)
        row[7] = value
    for dtype in BLOCKS:
        for rounding in ROUNDINGS if dtype.name in ("mxfp8_e4m3", "mxint8") else ROUNDINGS[:1]:
            given = OPTIONS | {"dtype": dtype, "rounding": rounding, "key": 7, "counter": 3, "axis": -1}
            yield Sample((spread,), given, f"{dtype}, {rounding}")
            yield Sample((edges,), given, f"edges, {dtype}, {rounding}")
    given = OPTIONS | {"dtype": BLOCKS[0], "axis": 0, "subnormals": False}
    yield Sample((spread.T,), given, "columns, flushed")
    for shape in ((0,), (1,), (33,), (2, 0, 3), (2, 3, 40)):
        given = OPTIONS | {"dtype": BLOCKS[0], "axis": -1}
        yield Sample((np.asarray(rng.standard_normal(shape)),), given, f"shape {shape}")


block_quantize = Op(
    "block_quantize",
    "(x: [..., n], *, dtype, axis, rounding, overflow, subnormals, key, counter, random_bits) "
    "-> codes [..., n], scales [..., ceil(n / size)]",
    blocks,
    check=_check_blocks,
    result=lambda *_, dtype, **__: (int8 if isinstance(dtype.element, Fixed) else uint8, uint8),
    formats=(float32, float64),
    samples=_block_samples,
    key=lambda x, *, dtype, axis, rounding, subnormals, **_: (dtype, axis % x.ndim == x.ndim - 1, rounding, subnormals),
)


def _values_of_blocks(codes: Array, scales: Array, *, dtype: Block, axis: int) -> Array:
    exact: Array = dtype.exact(BlockArray(codes, scales, axis % codes.ndim, dtype.size))
    return exact


def _check_stored(codes: Array, scales: Array, *, dtype: Block, axis: int) -> None:
    if not isinstance(dtype, Block) or not codes.ndim or not -codes.ndim <= axis < codes.ndim:
        raise FormatError(
            f"block_dequantize: dtype={dtype!r}, axis={axis}: expected a block format and an axis of codes"
        )
    size = list(codes.shape)
    size[axis] = -(-size[axis] // dtype.size)
    if scales.shape != tuple(size):
        raise FormatError(
            f"{dtype.name}: scales of shape {scales.shape} for codes of {codes.shape}: expected {tuple(size)}"
        )


def _stored_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(1)
    for dtype in BLOCKS:
        codes = rng.integers(0, 2**dtype.bits, (5, 75)).astype(np.uint8).view(dtype.element.storage)
        scales = rng.integers(100, 150, (5, 3)).astype(np.uint8)
        scales[0], scales[1] = (0, 1, 255), (254, 127, 30)
        yield Sample((codes, scales), {"dtype": dtype, "axis": -1}, f"{dtype}")
    yield Sample((codes.T, scales.T), {"dtype": dtype, "axis": 0}, f"{dtype}, columns")
    for shape, count in (((0,), (0,)), ((1,), (1,)), ((2, 0), (2, 0)), ((0, 40), (0, 2))):
        yield Sample(
            (np.zeros(shape, np.uint8), np.zeros(count, np.uint8)), {"dtype": BLOCKS[0], "axis": -1}, f"{shape}"
        )


block_dequantize = Op(
    "block_dequantize",
    "(codes: [..., n], scales: [..., ceil(n / size)], *, dtype, axis) -> [..., n] float32",
    _values_of_blocks,
    check=_check_stored,
    result=lambda *_, **__: float32,
    formats=(uint8, int8),
    promote=False,
    samples=_stored_samples,
    ulps={float32: 0.5},
    key=lambda codes, scales, *, dtype, axis: (dtype, axis % codes.ndim == codes.ndim - 1),
)

__all__ = [
    "OPTIONS", "SOURCES", "block_dequantize", "block_quantize", "blocks", "encoded", "fake_quantize", "quantize",
    "random_words",
]  # fmt: skip
