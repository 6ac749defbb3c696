"""The rows: conversions, integer products, chosen accumulators, fixed-point arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.bench import peak
from ulpgrad.bench.bench_accumulate import numpy_loop
from ulpgrad.bench.bench_conversions import mxfp8, saturated
from ulpgrad.bench.peers import others
from ulpgrad.bench.peers.work import Contender, Target, Work
from ulpgrad.formats import FORMATS, Array, Float, Q, as_format
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.kernels.threads import get_num_threads

MILLION = 1_000_000
WORD = Q(7, 8)
E6M9 = as_format("e6m9")
SIZE, SMALL = 512, 128  # of products in chosen accumulators; of what takes a peer seconds, scaled by n³
LARGE, CORNER = 1024, 256  # of integer products; of NumPy's
CHUNK = 64
MODEST = 1 << 12  # codes below it: sums of 512 products stay within the accumulators here
VALUES, OPERATIONS = "M values/s", "GOP/s"

Found = list[Contender]


def storage(t: Any) -> Array:
    """A tensor's codes as they lie in memory."""
    return np.asarray(t.storage)


def normal(count: int, scale: float = 1.0) -> Array:
    x = np.random.default_rng(0).standard_normal(count, dtype=np.float32)
    return np.asarray(x * np.float32(scale))


def codes(shape: Any, dtype: Any, top: int | None = None, seed: int = 0) -> Array:
    """Random codes over the whole range of an integer type, or below `top` in magnitude."""
    info = np.iinfo(dtype)
    low, high = (info.min, info.max) if top is None else (-top, top)
    drawn: Array = np.random.default_rng(seed).integers(low, high, shape, endpoint=True).astype(dtype)
    return drawn


def memory(bytes_per_value: float, count: int) -> Callable[[], float]:
    """M values a second at the speed of a copy of as many bytes, on as many threads as are set."""
    return lambda: peak.bandwidth(int(bytes_per_value * count), get_num_threads()) / bytes_per_value / 1e6


def units(bits: int, passes: int = 1) -> Callable[[], float | None]:
    """G operations a second of the integer units, if each product takes so many of theirs."""

    def limit() -> float | None:
        found = peak.dots(bits, get_num_threads())
        return None if found is None else found / passes / 1e9

    return limit


# Conversions


def to_e4m3(name: str) -> Work:
    count = 10 * MILLION
    x = normal(count, 8)
    t = ug.asarray(x)
    found: Found = []
    torch, ml_dtypes = others.imported("torch"), others.imported("ml_dtypes")
    if torch is not None:
        theirs = torch.from_numpy(x)
        found.append(
            Contender("torch", lambda: theirs.to(torch.float8_e4m3fn), count, lambda y: y.view(torch.uint8).numpy())
        )
    if ml_dtypes is not None:
        found.append(
            Contender("ml_dtypes", lambda: x.astype(ml_dtypes.float8_e4m3fn), count, lambda y: y.view(np.uint8))
        )
    ours = Contender("ulpgrad", lambda: t.to("float8_e4m3fn"), count, lambda y: storage(y).view(np.uint8))
    return Work(name, ours, found, VALUES, 1e6, memory(5, count), [Target(1, "torch")])


def to_q78(name: str, count: int) -> Work:
    x = normal(count, 40)
    t = ug.asarray(x)
    found = [Contender("NumPy recipe", lambda: saturated(x), count)]
    torch = others.imported("torch")
    if torch is not None:
        theirs = torch.from_numpy(x)
        found.append(Contender("torch recipe", lambda: others.torch_saturated(torch, theirs, WORD), count,
                               lambda y: y.numpy()))  # fmt: skip
    ours = Contender("ulpgrad", lambda: t.to(WORD), count, storage)
    return Work(name, ours, found, VALUES, 1e6, memory(6, count), [Target(3, "NumPy recipe")], threads=1)


def joined(codes: Array, scales: Array) -> Array:
    """Codes and scales of blocks in one array."""
    return np.concatenate([np.asarray(codes).ravel(), np.asarray(scales).ravel()])


def to_mxfp8(name: str, count: int) -> Work:
    x = normal(count)
    t = ug.asarray(x)
    found: Found = [Contender("NumPy recipe", lambda: mxfp8(x), count, lambda y: joined(y[0].view(np.uint8), y[1]))]
    torch, torchao = others.imported("torch"), others.imported("torchao")
    target = "torch recipe"
    if torch is not None:
        theirs = torch.from_numpy(x)

        def numpy(t: Any) -> Array:
            return np.asarray(t.view(torch.uint8).numpy())

        found.append(Contender(
            "torch recipe", lambda: others.torch_mxfp8(torch, theirs), count, lambda y: joined(*map(numpy, y)),
            note="by the floor rule, in the manner of torchao",
        ))  # fmt: skip
        if torchao is not None:
            to_mx = others.imported("torchao.prototype.mx_formats.mx_tensor").to_mx
            found.append(Contender(
                "torchao", lambda: to_mx(theirs, torch.float8_e4m3fn, others.MX_BLOCK), count,
                lambda y: joined(*map(numpy, y[::-1])), note=f"to_mx, eager, version {torchao.__version__}",
            ))  # fmt: skip
            target = "torchao"

    ours = Contender("ulpgrad", lambda: t.to("mxfp8_e4m3"), count, lambda y: joined(y.storage.codes, y.storage.scales))
    note = "" if torchao is not None else "torchao is not installed: its recipe in torch stands for it"
    return Work(name, ours, found, VALUES, 1e6, memory(5 + 1 / 32, count),
                [Target(10, target)], threads=1, note=note)  # fmt: skip


# Integer products


def product(a: Array, b: Array, accumulator: Any) -> Contender:
    """integer_matmul as dispatch calls it."""
    forms = (FORMATS[str(a.dtype)], FORMATS[str(b.dtype)])
    call = partial(dispatch.call, integer.integer_matmul, forms, (a, b), {"accumulator": accumulator})
    return Contender("ulpgrad", call, 2 * LARGE**3, lambda y: np.asarray(y[0]))


def numpy_product(name: str, a: Array, b: Array, dtype: Any, accumulator: Any = None) -> Contender:
    """NumPy's product in that type, of a corner: it takes seconds."""
    left, right = np.ascontiguousarray(a[:CORNER, :CORNER]), np.ascontiguousarray(b[:CORNER, :CORNER])
    wide_left, wide_right = left.astype(dtype), right.astype(dtype)
    own = product(left, right, accumulator)
    return Contender(name, lambda: wide_left @ wide_right, 2 * CORNER**3, np.asarray, lambda: np.asarray(own.call()[0]),
                     f"at {CORNER}³, its rate taken as that of {LARGE}³")  # fmt: skip


def int8_product(name: str) -> Work:
    a, b = codes((LARGE, LARGE), np.int8), codes((LARGE, LARGE), np.int8, seed=1)
    found = [numpy_product("NumPy int32", a, b, np.int32)]
    torch = others.imported("torch")
    if torch is not None:
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        found.append(Contender("torch._int_mm", lambda: torch._int_mm(left, right), 2 * LARGE**3, lambda y: y.numpy()))
    return Work(name, product(a, b, None), found, OPERATIONS, 1e9, units(8),
                [Target(1, "torch._int_mm")])  # fmt: skip


def int16_product(name: str, exact: bool) -> Work:
    a, b = codes((LARGE, LARGE), np.int16), codes((LARGE, LARGE), np.int16, seed=1)
    if not exact:
        found = [numpy_product("NumPy int32", a, b, np.int32)]
        return Work(name, product(a, b, None), found, OPERATIONS, 1e9, units(16),
                    [Target(0.6, "limit")])  # fmt: skip
    found = [numpy_product("NumPy int64", a, b, np.int64, "int64")]
    apytypes = others.imported("apytypes")
    if apytypes is not None:
        left, right = others.apy_fixed(apytypes, a, WORD), others.apy_fixed(apytypes, b, WORD)
        found.append(Contender("apytypes", lambda: left @ right, 2 * LARGE**3, others.apy_codes))
    bytes_, words = units(8, passes=4), units(16, passes=2)

    def exactly() -> float | None:
        """Of two halves of both operands, or of two halves of one: without dot products of bytes the second is more."""
        return max((limit for limit in (bytes_(), words()) if limit is not None), default=None)

    return Work(
        name, product(a, b, "int64"), found, OPERATIONS, 1e9, exactly,
        [Target(0.5, "limit")], note="the limit counts four products of bytes for each of words, or two of words",
    )  # fmt: skip


# Chosen accumulators


def chosen_accumulator(name: str, chunk: int) -> Work:
    """Q7.8 operands, Q15.8 sums that saturate: products lose 8 bits, to the nearest even."""
    a, b = codes((SIZE, SIZE), np.int16, MODEST), codes((SIZE, SIZE), np.int16, MODEST, seed=1)

    def ours(left: Array, right: Array, how: Accumulator) -> Callable[[], Any]:
        x, y = ug.Tensor(left, WORD), ug.Tensor(right, WORD)
        return lambda: ug.fixed.matmul(x, y, accumulator=how, result="full")

    found: Found = []
    apytypes = others.imported("apytypes")
    if apytypes is not None:
        part = np.ascontiguousarray(a[:SMALL, :SMALL]), np.ascontiguousarray(b[:SMALL, :SMALL])
        left, right = (others.apy_fixed(apytypes, p, WORD) for p in part)
        every = Accumulator(24, 8)
        note = f"at {SMALL}³, its rate taken as that of {SIZE}³"
        found.append(Contender(
            "apytypes", lambda: others.apy_matmul(apytypes, left, right, every), 2 * SMALL**3, others.apy_codes,
            lambda: storage(ours(*part, every)()), note + (", product by product: it knows no chunks" if chunk > 1 else ""),
        ))  # fmt: skip
    mine = Contender("ulpgrad", ours(a, b, Accumulator(24, 8, chunk=chunk)), 2 * SIZE**3, storage)
    return Work(name, mine, found, OPERATIONS, 1e9,
                targets=[Target(1000, "apytypes")])  # fmt: skip


def float_accumulator(name: str, chunk: int) -> Work:
    """float32 operands, sums in a 1-6-9 float."""
    assert isinstance(E6M9, Float)
    a, b = normal(SIZE * SIZE).reshape(SIZE, SIZE), normal(SIZE * SIZE, 2).reshape(SIZE, SIZE)
    how = ug.Accumulate("e6m9", chunk)
    part = a[:SMALL, :SMALL].copy(), b[:SMALL, :SMALL].copy()
    found = []
    at = f"at {SMALL}³, its rate taken as that of {SIZE}³"
    every = ", product by product" if chunk > 1 else ""

    def small() -> Array:
        return storage(ug.matmul(ug.asarray(part[0]), ug.asarray(part[1]), accumulate="e6m9")).astype(np.float64)

    found.append(Contender("NumPy loop", partial(numpy_loop, *part), 2 * SMALL**3, np.asarray, small, at + every))
    apytypes = others.imported("apytypes")
    if apytypes is not None:
        left, right = (apytypes.APyFloatArray.from_array(p, exp_bits=8, man_bits=23) for p in part)
        found.append(Contender(
            "apytypes", lambda: others.apy_float_matmul(apytypes, left, right, E6M9), 2 * SMALL**3, None,
            note=f"{at}{every}; it rounds products too, so its sums are others",
        ))  # fmt: skip
    x, y = ug.asarray(a), ug.asarray(b)
    mine = Contender("ulpgrad", lambda: ug.matmul(x, y, accumulate=how), 2 * SIZE**3, storage)
    return Work(name, mine, found, OPERATIONS, 1e9)


# Arithmetic


def arithmetic(name: str, multiply: bool) -> Work:
    """One million results of Q7.8 operands in Q7.8, to the nearest even, saturating."""
    top = None if multiply else 1 << 14  # sums that fit, as NumPy's wrap
    a, b = codes(MILLION, np.int16, top), codes(MILLION, np.int16, top, seed=1)
    x, y = ug.Tensor(a, WORD), ug.Tensor(b, WORD)
    found: Found = []
    if multiply:
        found.append(Contender("NumPy recipe", lambda: others.rounded_product(a, b, WORD), MILLION, None,
                               note="ties up instead of to even"))  # fmt: skip
    else:
        found.append(Contender("NumPy int16 add", lambda: a + b, MILLION, note="wraps, and does not saturate"))
    apytypes = others.imported("apytypes")
    if apytypes is not None:
        left, right = (others.apy_fixed(apytypes, p, WORD) for p in (a, b))
        found.append(Contender(
            "apytypes",
            lambda: others.apy_cast(apytypes, left * right if multiply else left + right, WORD), MILLION, others.apy_codes,
        ))  # fmt: skip
    ours = Contender("ulpgrad", (lambda: x * y) if multiply else (lambda: x + y), MILLION, storage)
    return Work(name, ours, found, VALUES, 1e6, memory(6, MILLION))


# Name -> what makes it, of its name.
WORKS: dict[str, Callable[[str], Work]] = {
    "float32 → e4m3, 10 M values": to_e4m3,
    "float32 → Q7.8 saturating, 1 M values, one core": partial(to_q78, count=MILLION),
    "float32 → Q7.8 saturating, 10 M values, one core": partial(to_q78, count=10 * MILLION),
    "float32 → MXFP8 (e4m3), 1 M values, one core": partial(to_mxfp8, count=MILLION),
    "float32 → MXFP8 (e4m3), 10 M values, one core": partial(to_mxfp8, count=10 * MILLION),
    "matmul int8 → int32, 1024³": int8_product,
    "matmul int16 → int32 wrapping, 1024³": partial(int16_product, exact=False),
    "matmul int16 → exact int64, 1024³": partial(int16_product, exact=True),
    "matmul Q7.8 in 24 saturating bits, 512³, chunk 1": partial(chosen_accumulator, chunk=1),
    f"matmul Q7.8 in 24 saturating bits, 512³, chunk {CHUNK}": partial(chosen_accumulator, chunk=CHUNK),
    "matmul float32 in a 1-6-9 float, 512³, chunk 1": partial(float_accumulator, chunk=1),
    f"matmul float32 in a 1-6-9 float, 512³, chunk {CHUNK}": partial(float_accumulator, chunk=CHUNK),
    "Q7.8 + Q7.8, 1 M values": partial(arithmetic, multiply=False),
    "Q7.8 × Q7.8, 1 M values": partial(arithmetic, multiply=True),
}

__all__ = ["WORKS"]
