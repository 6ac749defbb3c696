"""What the PTX machine computes of floats, one instruction a kernel, and conversions: against fractions, the ISA read again."""

import math
import random
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from test_ptx_arithmetic import INTEGERS, held, kernel, operands, wrapped

FLOATS = {"f16": (np.float16, 11, -24), "f32": (np.float32, 24, -149), "f64": (np.float64, 53, -1074)}


def nearest(x: Fraction, bits: int, least: int, how: str = "rn") -> float:
    """A fraction in a format of `bits` of precision whose smallest step is 2^least; no overflow."""
    if x == 0:
        return 0.0
    place = abs(x.numerator).bit_length() - x.denominator.bit_length()
    place -= abs(x) < Fraction(2) ** place
    step = max(place - bits + 1, least)
    scaled = x / Fraction(2) ** step
    whole = {"rn": round, "rz": math.trunc, "rm": math.floor, "rp": math.ceil}[how](scaled)
    return math.ldexp(whole, step)


def some_floats(kind: Any, count: int, seed: int, spread: int) -> list[Any]:
    chance = np.random.default_rng(seed)
    x = chance.standard_normal((count, 400)) * 2.0 ** chance.integers(-spread, spread, (count, 400))
    with np.errstate(over="ignore"):
        return list(x.astype(kind))


def traps(kind: Any, bits: int) -> list[Any]:
    """Products next to the middle of two values, and what decides which one it is: far below what is seen in wider sums."""
    u = 2.0 ** (1 - bits)
    a = np.array([1 + u, 1 + u, 1 + u, 1 + u, 1 + u * 2 ** (bits // 2), 1.0, 1.0, 3.0], kind)
    b = np.array([1 + u / 1, 1 - u / 2, 1 - u / 2, 1.5, 1.0, u / 2, u / 2, u * 0.75], kind)
    tiny = float(np.finfo(kind).smallest_subnormal)
    c = np.array([-1, tiny, -tiny, tiny, -tiny, 1.0, 1 + u, 1 - u / 2], kind)
    more = np.array(
        [[1 + u, u / 2 * (1 + u), 1.0], [1.0, u / 2, 1.0], [u, 0.5, 1.0], [u, 0.5, 1 + u], [-u, 0.25, 1.0]]
    ).astype(kind)
    return [np.concatenate([x, more[:, n]]) for n, x in enumerate((a, b, c))]


@pytest.mark.parametrize("kind", FLOATS)
def test_multiply_add_rounds_once(kind: str) -> None:
    of, bits, least = FLOATS[kind]
    a, b, c = (np.concatenate([x, y]) for x, y in zip(some_floats(of, 3, 4, 4), traps(of, bits), strict=True))
    found = kernel(f"fma.rn.{kind} %x, %a, %b, %c;", [of], a, b, c)[0]
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
    np.testing.assert_array_equal(found, np.array([nearest(x, bits, least) for x in exact]).astype(of))


def test_multiply_add_rounds_once_among_subnormals() -> None:
    for kind, low in (("f16", -9), ("f32", -73), ("f64", -535)):
        of, bits, least = FLOATS[kind]
        chance = np.random.default_rng(5)
        a, b = ((chance.standard_normal((2, 300))) * 2.0**low).astype(of)
        c = (chance.standard_normal(300) * 2.0 ** (least + 3)).astype(of)
        found = kernel(f"fma.rn.{kind} %x, %a, %b, %c;", [of], a, b, c)[0]
        exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]
        np.testing.assert_array_equal(found, np.array([nearest(x, bits, least) for x in exact]).astype(of), kind)


@pytest.mark.parametrize("how", ["rn", "rz", "rm", "rp"])
def test_float32_in_each_rounding(how: str) -> None:
    a, b, c = some_floats(np.float32, 3, 6, 20)
    cases: list[tuple[str, Callable[..., Fraction]]] = [
        ("add", lambda a, b, c: a + b), ("sub", lambda a, b, c: a - b), ("mul", lambda a, b, c: a * b),
        ("fma", lambda a, b, c: a * b + c),
    ]  # fmt: skip
    for name, function in cases:
        third = ", %c" if name == "fma" else ""
        found = kernel(f"{name}.{how}.f32 %x, %a, %b{third};", [np.float32], a, b, c)[0]
        exact = [function(*(Fraction(float(v)) for v in each)) for each in zip(a, b, c, strict=True)]
        np.testing.assert_array_equal(found, np.array([nearest(x, 24, -149, how) for x in exact], np.float32), name)


def test_bfloat16_rounds_once() -> None:
    a, b, c = some_floats(ml_dtypes.bfloat16, 3, 7, 20)
    trap = np.array(
        [[1.5, 1.0, 2.0**-100], [1.0078125, 1.0078125, 2.0**-60], [257 / 256, 1.0, 1e-30]], ml_dtypes.bfloat16
    )
    pair = np.array([[2.0**-4, 1 + 2.0**-4, 2.0**-90], [3 / 2, 86 * 2.0**-1, 2.0**-90]], ml_dtypes.bfloat16)
    small = np.array(
        [[(1 + k / 128) * 2.0**-66, (1 + j / 128) * 2.0**-66, 0] for k in range(0, 128, 9) for j in range(0, 128, 7)]
    )
    a, b, c = (
        np.concatenate([x, trap[:, n], pair[:, n], small[:, n].astype(ml_dtypes.bfloat16)])
        for n, x in enumerate((a, b, c))
    )
    # A product that lies halfway between two values, and a sum that says which way.
    a = np.append(a, np.array([7 / 16, 7 / 16], ml_dtypes.bfloat16))
    b = np.append(b, np.array([37 / 16, 37 / 16], ml_dtypes.bfloat16))
    c = np.append(c, np.array([2.0**-60, -(2.0**-60)], ml_dtypes.bfloat16))
    for name, function in (
        ("fma", lambda a, b, c: a * b + c),
        ("mul", lambda a, b, c: a * b),
        ("add", lambda a, b, c: a + b),
    ):
        third = ", %c" if name == "fma" else ""
        words = [x.astype(ml_dtypes.bfloat16).view(np.uint16) for x in (a, b, c)]
        found = kernel(f"{name}.rn.bf16 %x, %a, %b{third};", [np.uint16], *words)[0].view(ml_dtypes.bfloat16)
        exact = [function(*(Fraction(float(v)) for v in each)) for each in zip(a, b, c, strict=True)]
        expected = np.array([nearest(x, 8, -133) for x in exact]).astype(np.float32)
        np.testing.assert_array_equal(found.astype(np.float32), expected, name)


def test_subnormals_are_flushed_where_asked() -> None:
    tiny, low = np.float32(2.0**-127), np.float32(2.0**-126)
    a = np.array([tiny, -tiny, low, low, 1.0, 2.0**-80], np.float32)
    b = np.array([1.0, 1.0, 0.5, 1.0, -tiny, 2.0**-60], np.float32)
    found = kernel("mul.ftz.f32 %x, %a, %b; add.ftz.f32 %y, %a, %b;", [np.float32] * 2, a, b)
    np.testing.assert_array_equal(
        found[0].view(np.uint32), np.array([0, -0.0, 0, low, -0.0, 0], np.float32).view(np.uint32)
    )
    np.testing.assert_array_equal(found[1], np.array([1, 1, 0.5, 1, 1, 2.0**-60 + 2.0**-80], np.float32))
    assert kernel("mul.f32 %x, %a, %b;", [np.float32], a[:1], b[:1])[0][0] == tiny


def test_saturation() -> None:
    a = np.array([-1, -0.5, 0.25, 1, 1.5, np.inf, -np.inf, np.nan], np.float32)
    for kind in (np.float32, np.float16):
        found = kernel(f"add.sat.f{kind().itemsize * 8} %x, %a, %a;", [kind], a.astype(kind))[0]
        np.testing.assert_array_equal(found, np.array([0, 0, 0.5, 1, 1, 1, 0, 0]))
    pair = a.astype(np.float16).view(np.uint32)
    found = kernel("add.sat.f16x2 %x, %a, %a;", [np.uint32], pair)[0].view(np.float16)
    np.testing.assert_array_equal(found, np.array([0, 0, 0.5, 1, 1, 1, 0, 0]))


SPECIAL = [0.0, -0.0, 1.0, -1.0, math.inf, -math.inf, math.nan, 2.0, 0.5]


@pytest.mark.parametrize("kind", ["f16", "f32", "f64", "bf16"])
@pytest.mark.parametrize("name", ["min", "max"])
@pytest.mark.parametrize("nan", ["", ".NaN"])
def test_least_and_greatest(kind: str, name: str, nan: str) -> None:
    if kind == "f64" and nan:
        pytest.skip("the ISA has no min.NaN.f64")
    of = ml_dtypes.bfloat16 if kind == "bf16" else FLOATS[kind][0]
    a, b = (v.ravel().astype(of) for v in np.meshgrid(SPECIAL, SPECIAL))
    words = [v.view(f"u{v.itemsize}") for v in (a, b)]
    found = kernel(f"{name}{nan}.{kind} %x, %a, %b;", [words[0].dtype], *words)[0].view(of).astype(float)
    for x, y, got in zip(a.astype(float), b.astype(float), found, strict=True):
        if math.isnan(x) or math.isnan(y):
            other = y if math.isnan(x) else x
            expected = math.nan if nan or math.isnan(other) else other
        else:
            order = sorted([x, y], key=lambda v: (v, math.copysign(1, v)))
            expected = order[0 if name == "min" else 1]
        assert (
            math.isnan(got)
            if math.isnan(expected)
            else (got, math.copysign(1, got)) == (expected, math.copysign(1, expected))
        )


ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
TELL: dict[str, Callable[[Any, Any], bool]] = {
    "eq": lambda a, b: a == b, "ne": lambda a, b: a != b, "lt": lambda a, b: a < b, "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b, "ge": lambda a, b: a >= b,
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOATS)
def test_comparisons_of_floats(kind: str) -> None:
    of = FLOATS[kind][0]
    a, b = (v.ravel().astype(of) for v in np.meshgrid(SPECIAL, SPECIAL))
    odd = np.isnan(a) | np.isnan(b)
    cases = {name: ~odd & tell(a, b) for name, tell in TELL.items()}
    cases |= {name + "u": odd | tell(a, b) for name, tell in TELL.items()}
    cases |= {"num": ~odd, "nan": odd}
    for name, expected in cases.items():
        found = kernel(f"setp.{name}.{kind} %p, %a, %b; selp.b32 %x, 7, 3, %p;", [np.uint32], a, b)[0]
        np.testing.assert_array_equal(found == 7, expected, name)


@pytest.mark.parametrize("kind", INTEGERS)
def test_comparisons_of_integers(kind: str) -> None:
    of = INTEGERS[kind]
    a, b = operands(of, 2)
    cases = {name: tell(a, b) for name, tell in TELL.items()}
    if kind[0] == "u":
        cases |= {"lo": a < b, "ls": a <= b, "hi": a > b, "hs": a >= b}
    for name, expected in cases.items():
        found = kernel(f"setp.{name}.{kind} %p, %a, %b; selp.u32 %x, 1, 0, %p;", [np.uint32], a, b)[0]
        np.testing.assert_array_equal(found == 1, expected, name)


@pytest.mark.parametrize("combine", ["and", "or", "xor"])
@pytest.mark.parametrize("negated", ["", "!"])
def test_comparisons_with_two_results(combine: str, negated: str) -> None:
    a, b = (v.ravel() for v in np.meshgrid(np.arange(4, dtype=np.int32), np.arange(4, dtype=np.int32)))
    body = f"""setp.ge.s32 %r, %a, 2; setp.lt.{combine}.s32 %p|%q, %a, %b, {negated}%r;
      selp.u32 %x, 1, 0, %p; selp.u32 %y, 1, 0, %q;"""
    found = kernel(body, [np.uint32] * 2, a, b)
    third = (a >= 2) ^ bool(negated)
    ufunc = {"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor}[combine]
    np.testing.assert_array_equal(found[0], ufunc(a < b, third))
    np.testing.assert_array_equal(found[1], ufunc(~(a < b), third))


def test_copysign_and_negation() -> None:
    a, b = (v.ravel().astype(np.float32) for v in np.meshgrid(SPECIAL, SPECIAL))
    found = kernel("copysign.f32 %x, %a, %b;", [np.float32], a, b)[0]
    np.testing.assert_array_equal(
        found.view(np.uint32), np.copysign(b, a).view(np.uint32)
    )  # the sign of a, the value of b
    found = kernel("neg.f32 %x, %a; abs.f32 %y, %a;", [np.float32] * 2, a)
    np.testing.assert_array_equal(found[0], -a)
    np.testing.assert_array_equal(found[1], abs(a))


# Conversions.

ROUNDING: dict[str, Callable[[float], int]] = {"rni": round, "rzi": math.trunc, "rmi": math.floor, "rpi": math.ceil}


@pytest.mark.parametrize("kind", ["s8", "u8", *INTEGERS])
@pytest.mark.parametrize("source", FLOATS)
def test_floats_to_integers(kind: str, source: str) -> None:
    of = INTEGERS.get(kind, {"s8": np.int8, "u8": np.uint8}.get(kind))
    limits = np.iinfo(of)
    values = [
        0.5,
        1.5,
        2.5,
        -0.5,
        -1.5,
        -2.5,
        1e9,
        -1e9,
        1e30,
        -1e30,
        math.inf,
        -math.inf,
        127.5,
        255.5,
        -128.5,
        3.7,
        -3.7,
    ]
    values += [
        float(limits.max),
        float(limits.min),
        float(limits.max) / 2,
        2.0**31,
        2.0**32,
        -(2.0**31) - 1,
        2.0**31 - 0.5,
        0.0,
    ]
    with np.errstate(over="ignore"):
        a = np.array(values, FLOATS[source][0])
    for how, function in ROUNDING.items():

        def expected(x: float, function: Callable[[float], int] = function) -> int:
            if math.isinf(x):
                return limits.max if x > 0 else limits.min
            return min(max(function(x), limits.min), limits.max)

        found = kernel(f"cvt.{how}.{kind}.{source} %x, %a;", [of], a)[0]
        np.testing.assert_array_equal(found, np.array([expected(float(x)) for x in a], of), how)
    nothing = kernel(f"cvt.rzi.{kind}.{source} %x, %a;", [of], np.array([math.nan], FLOATS[source][0]))[0]
    if limits.bits >= 32:
        half = limits.bits == 64 or source == "f64"  # where the ISA says 1 << (width - 1)
        np.testing.assert_array_equal(nothing, wrapped([1 << limits.bits - 1 if half else 0], of))


@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("to", FLOATS)
def test_integers_to_floats(kind: str, to: str) -> None:
    of = INTEGERS[kind]
    a = operands(of, 2)[0]
    kind_of, bits, least = FLOATS[to]
    if to == "f16":
        a = a[np.abs(a.astype(np.float64)) < 60000]
    if np.iinfo(of).bits == 64 and to == "f32":
        a = np.append(a, np.array([2**60 + 2**36 + 1, 2**60 + 2**36, 2**60 + 2**36 - 1, 2**62 + 1, 2**54 + 1], of))
    for how in ("rn", "rz", "rm", "rp"):
        found = kernel(f"cvt.{how}.{to}.{kind} %x, %a;", [kind_of], a)[0]
        np.testing.assert_array_equal(
            found, np.array([nearest(Fraction(int(v)), bits, least, how) for v in a]).astype(kind_of), how
        )


def test_integers_to_integers() -> None:
    kinds = {"s8": np.int8, "u8": np.uint8, **INTEGERS}
    chance = random.Random(8)
    for source, of in INTEGERS.items():
        a = operands(of, 2)[0]
        for to in chance.sample(list(kinds), 5):
            held(f"cvt.{to}.{source} %x, %a;", kinds[to], lambda a: a, a)
            limits = np.iinfo(kinds[to])
            if (limits.min, limits.max) != (np.iinfo(of).min, np.iinfo(of).max):
                held(
                    f"cvt.sat.{to}.{source} %x, %a;",
                    kinds[to],
                    lambda a, m=limits: min(max(a, int(m.min)), int(m.max)),
                    a,
                )


@pytest.mark.parametrize("how", ["rn", "rz", "rm", "rp"])
@pytest.mark.parametrize(("to", "source"), [("f16", "f32"), ("f32", "f64"), ("f16", "f64")])
def test_floats_to_narrower_floats(to: str, source: str, how: str) -> None:
    kind, bits, least = FLOATS[to]
    u = 2.0 ** (1 - bits)
    edges = [
        1 + u / 2,
        1 + u * 1.5,
        1 + u / 2 + 2.0**-30,
        -1 - u / 2,
        2.0**least,
        2.0**least / 2,
        2.0**least * 0.75,
        -(2.0**least) / 4,
    ]
    a = np.concatenate([np.array(edges).astype(FLOATS[source][0]), some_floats(FLOATS[source][0], 1, 9, 12)[0]])
    found = kernel(f"cvt.{how}.{to}.{source} %x, %a;", [kind], a)[0]
    np.testing.assert_array_equal(
        found, np.array([nearest(Fraction(float(x)), bits, least, how) for x in a]).astype(kind)
    )


@pytest.mark.parametrize("how", ["rn", "rz"])
def test_floats_to_bfloat16(how: str) -> None:
    a = np.concatenate(
        [some_floats(np.float32, 1, 10, 100)[0], np.float32([1 + 2.0**-8, 1 + 3 * 2.0**-8, 2.0**-134, 3e38])]
    )
    found = kernel(f"cvt.{how}.bf16.f32 %x, %a;", [np.uint16], a)[0].view(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(found, np.array([nearest(Fraction(float(x)), 8, -133, how) for x in a], np.float32))
    if how == "rn":
        np.testing.assert_array_equal(found, a.astype(ml_dtypes.bfloat16).astype(np.float32))
    special = np.array([math.inf, -math.inf, math.nan, 3.4e38], np.float32)
    found = kernel(f"cvt.{how}.bf16.f32 %x, %a;", [np.uint16], special)[0]
    np.testing.assert_array_equal(found, [0x7F80, 0xFF80, 0x7FFF, 0x7F80 if how == "rn" else 0x7F7F])
    relu = kernel("cvt.rn.relu.bf16.f32 %x, %a;", [np.uint16], np.array([-1, 2, -0.5], np.float32))[0]
    np.testing.assert_array_equal(relu, [0, 0x4000, 0])


def test_wider_floats_are_exact() -> None:
    codes = np.arange(0, 2**16, 7, dtype=np.uint16)
    found = kernel("cvt.f32.bf16 %x, %a;", [np.float32], codes)[0]
    np.testing.assert_array_equal(found, codes.view(ml_dtypes.bfloat16).astype(np.float32))
    found = kernel("cvt.f32.f16 %x, %a; cvt.f64.f16 %y, %a;", [np.float32, np.float64], codes.view(np.float16))
    np.testing.assert_array_equal(found[0], codes.view(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found[1], codes.view(np.float16).astype(np.float64))


def test_whole_floats() -> None:
    a = np.array([0.5, 1.5, -0.5, -1.5, 2.7, -2.7, 1e20, math.inf, -0.0], np.float32)
    for how, function in (("rni", np.rint), ("rzi", np.trunc), ("rmi", np.floor), ("rpi", np.ceil)):
        found = kernel(f"cvt.{how}.f32.f32 %x, %a;", [np.float32], a)[0]
        np.testing.assert_array_equal(found.view(np.uint32), function(a).view(np.uint32), how)


def test_tf32_rounds_halves_away() -> None:
    a = np.array(
        [1 + 2.0**-11, 1 + 3 * 2.0**-11, -1 - 2.0**-11, 1 + 2.0**-12, 1 + 2.0**-11 - 2.0**-23, 3.0, math.inf],
        np.float32,
    )
    found = kernel("cvt.rna.tf32.f32 %x, %a;", [np.uint32], a)[0].view(np.float32)
    np.testing.assert_array_equal(found, np.float32([1 + 2.0**-10, 1 + 2.0**-9, -1 - 2.0**-10, 1, 1, 3, math.inf]))


@pytest.mark.parametrize(("kind", "most"), [("e4m3", 448.0), ("e5m2", 57344.0)])
def test_pairs_of_eight_bits(kind: str, most: float) -> None:
    of = {"e4m3": ml_dtypes.float8_e4m3fn, "e5m2": ml_dtypes.float8_e5m2}[kind]
    a, b = some_floats(np.float32, 2, 11, 18)
    a[:6] = [most, most * 1.04, most * 100, -math.inf, math.inf, -most * 3]
    found = kernel(f"cvt.rn.satfinite.{kind}x2.f32 %x, %a, %b;", [np.uint16], a, b)[0]
    with np.errstate(all="ignore"):
        expected = [np.clip(v, -most, most).astype(of).view(np.uint8).astype(np.uint16) for v in (a, b)]
    np.testing.assert_array_equal(found, expected[0] << 8 | expected[1])  # the first operand is the upper half
    none = kernel(f"cvt.rn.satfinite.{kind}x2.f32 %x, %a, %a;", [np.uint16], np.array([math.nan], np.float32))[0]
    assert np.isnan(none.view(np.uint8).view(of).astype(float)).all()
    every = np.arange(0, 2**16, 5, dtype=np.uint16)
    halves = kernel(f"cvt.rn.f16x2.{kind}x2 %x, %a;", [np.uint32], every)[0].view(np.float16)
    np.testing.assert_array_equal(halves, every.view(np.uint8).view(of).astype(np.float16))
    relu = kernel(f"cvt.rn.satfinite.relu.{kind}x2.f32 %x, %a, %b;", [np.uint16], -abs(a), abs(b))[0]
    np.testing.assert_array_equal(relu >> 8, 0)
    from_halves = kernel(f"cvt.rn.satfinite.{kind}x2.f16x2 %x, %a;", [np.uint16], (halves.view(np.uint32)))[0]
    kept = np.isfinite(every.view(np.uint8).view(of).astype(float))
    np.testing.assert_array_equal(from_halves.view(np.uint8)[kept], every.view(np.uint8)[kept])


@pytest.mark.parametrize("how", ["rn", "rz"])
def test_pairs_of_halves(how: str) -> None:
    a, b = some_floats(np.float32, 2, 12, 8)
    for kind, of, bits, least in (("f16x2", np.float16, 11, -24), ("bf16x2", ml_dtypes.bfloat16, 8, -133)):
        found = (
            kernel(f"cvt.{how}.{kind}.f32 %x, %a, %b;", [np.uint32], a, b)[0].view(of).astype(np.float64).reshape(-1, 2)
        )
        for column, given in ((1, a), (0, b)):
            np.testing.assert_array_equal(
                found[:, column], [nearest(Fraction(float(x)), bits, least, how) for x in given]
            )


def test_words_are_packed_lowest_first() -> None:
    a, b = np.random.default_rng(13).integers(0, 2**16, (2, 64), np.uint16)
    found = kernel("mov.b32 %x, {%a, %b};", [np.uint32], a, b)[0]
    np.testing.assert_array_equal(found, a | b.astype(np.uint32) << 16)
    x, y = kernel("mov.b32 {%x, %y}, %a;", [np.uint16] * 2, found)
    np.testing.assert_array_equal(x, a)
    np.testing.assert_array_equal(y, b)
    wide = kernel("mov.b32 %t0, {%b, %a}; mov.b64 %x, {%t0, %c};", [np.uint64], a, b, found)[0]
    np.testing.assert_array_equal(
        wide, (b | a.astype(np.uint64) << np.uint64(16)) | found.astype(np.uint64) << np.uint64(32)
    )
    high = kernel("mov.b64 {_, %x}, %a;", [np.uint32], wide)[0]
    np.testing.assert_array_equal(high, found)


@pytest.mark.parametrize(("kind", "of"), [("f16x2", np.float16), ("bf16x2", ml_dtypes.bfloat16)])
def test_pairs_are_computed_half_by_half(kind: str, of: Any) -> None:
    a, b, c = (v.astype(of) for v in some_floats(np.float32, 3, 14, 4))
    words = [v.view(np.uint32) for v in (a, b, c)]
    bits, least = (11, -24) if kind == "f16x2" else (8, -133)
    cases: dict[str, Callable[..., Fraction]] = {
        "add.rn": lambda a, b, c: a + b, "sub.rn": lambda a, b, c: a - b, "mul.rn": lambda a, b, c: a * b,
        "fma.rn": lambda a, b, c: a * b + c, "fma.rn.relu": lambda a, b, c: max(a * b + c, Fraction(0)),
        "min": lambda a, b, c: min(a, b), "max": lambda a, b, c: max(a, b), "neg": lambda a, b, c: -a,
        "abs": lambda a, b, c: abs(a),
    }  # fmt: skip
    for name, function in cases.items():
        asked = {"neg": "%a", "abs": "%a"}.get(name, "%a, %b, %c" if "fma" in name else "%a, %b")
        found = kernel(f"{name}.{kind} %x, {asked};", [np.uint32], *words)[0].view(of).astype(np.float64)
        exact = [function(*(Fraction(float(v)) for v in each)) for each in zip(a, b, c, strict=True)]
        np.testing.assert_array_equal(found, [nearest(x, bits, least) for x in exact], name)
    empty = np.array([math.nan, 1.0, 2.0, math.nan], of).view(np.uint32)
    ones = np.array([1.0] * 4, of).view(np.uint32)
    found = kernel(f"min.NaN.{kind} %x, %a, %b; min.{kind} %y, %a, %b;", [np.uint32] * 2, empty, ones)
    np.testing.assert_array_equal(found[0].view(of).astype(float), [math.nan, 1, 1, math.nan])
    np.testing.assert_array_equal(found[1].view(of).astype(float), [1, 1, 1, 1])


def test_dot_products_of_bytes() -> None:
    a, b, c = np.random.default_rng(15).integers(0, 2**32, (3, 100), np.uint32)
    for kinds, (x, y) in {
        "s32.s32": (np.int8, np.int8),
        "u32.u32": (np.uint8, np.uint8),
        "s32.u32": (np.int8, np.uint8),
    }.items():
        found = kernel(f"dp4a.{kinds} %x, %a, %b, %c;", [np.uint32], a, b, c)[0]
        sums = (a.view(x).astype(int) * b.view(y).astype(int)).reshape(-1, 4).sum(1)
        np.testing.assert_array_equal(found, (sums + c.astype(int)).astype(np.uint32), kinds)
