"""What the PTX machine computes of integers, one instruction a kernel, against Python's: the ISA read again."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from ulpgrad.kernels.ptx.launch import run_text

INTEGERS = {"s16": np.int16, "u16": np.uint16, "s32": np.int32, "u32": np.uint32, "s64": np.int64, "u64": np.uint64}
FLOATS = {"f16": (np.float16, 11, -24), "f32": (np.float32, 24, -149), "f64": (np.float64, 53, -1074)}


def kernel(body: str, outs: Sequence[Any], *ins: Any) -> list[Any]:
    """Run instructions for each element: operands in %a to %d, results in %x and %y; %p to %s are predicates."""
    n = len(ins[0])
    arrays = [*map(np.ascontiguousarray, ins), *(np.zeros(n, kind) for kind in outs)]
    names = [*"abcd"[: len(ins)], *"xy"[: len(outs)]]
    loads, stores, registers = "", "", ""
    for k, (name, array) in enumerate(zip(names, arrays, strict=True)):
        size = array.dtype.itemsize
        registers += f".reg .b{max(16, 8 * size)} %{name}; "
        address = f"ld.param.u64 %base, [k_{k}]; mad.wide.u32 %at, %i, {size}, %base; "
        if k < len(ins):
            loads += address + f"ld.global.b{8 * size} %{name}, [%at];\n"
        else:
            stores += address + f"st.global.b{8 * size} [%at], %{name};\n"
    parameters = ", ".join(f".param .u64 k_{k}" for k in range(len(arrays)))
    run_text(
        f""".version 8.6 .target sm_90 .address_size 64
        .visible .entry k({parameters}) {{
          .reg .pred %p, %q, %r, %s, %out; .reg .b32 %i, %block, %t<4>; .reg .b16 %h<4>; .reg .b64 %base, %at; {registers}
          mov.u32 %i, %tid.x; mov.u32 %block, %ctaid.x; mad.lo.s32 %i, %block, 128, %i;
          setp.ge.u32 %out, %i, {n}; @%out exit;
          {loads} {body} {stores} ret; }}""",
        (-(-n // 128), 1, 1), (128, 1, 1), arrays,
    )  # fmt: skip
    return arrays[len(ins) :]


def operands(kind: Any, count: int, seed: int = 0) -> list[Any]:
    """Every combination of a type's edges, and random ones behind them."""
    limits = np.iinfo(kind)
    edges = [0, 1, 2, 3, limits.max, limits.max - 1, limits.min, limits.min + 1, limits.max // 2 + 1, 7]
    edges += [-1, -2, -7] if limits.min else [limits.max // 3]
    mesh = np.array(np.meshgrid(*[np.array(edges, kind)] * min(count, 2))).reshape(min(count, 2), -1)
    chance = np.random.default_rng(seed)
    more = chance.integers(limits.min, limits.max, (count, 200), kind, endpoint=True)
    more[:, ::2] >>= chance.integers(0, limits.bits, (count, 100)).astype(kind)
    out = [np.concatenate([mesh[i % len(mesh)], more[i]]) for i in range(count)]
    if count > 2:
        out[2] = chance.permutation(out[2])
    return out


def wrapped(values: Any, kind: Any) -> Any:
    bits = np.iinfo(kind).bits
    return np.array([int(v) & (1 << bits) - 1 for v in values], f"u{bits // 8}").view(kind)


def held(body: str, out: Any, function: Callable[..., int], *ins: Any) -> None:
    """A kernel's integers against a function of Python's."""
    found = kernel(body, [out], *ins)[0]
    np.testing.assert_array_equal(found, wrapped([function(*map(int, each)) for each in zip(*ins, strict=True)], out))


@pytest.mark.parametrize("kind", INTEGERS)
def test_integer_arithmetic(kind: str) -> None:
    of = INTEGERS[kind]
    bits = np.iinfo(of).bits
    a, b, c = operands(of, 3)
    held(f"add.{kind} %x, %a, %b;", of, lambda a, b: a + b, a, b)
    held(f"sub.{kind} %x, %a, %b;", of, lambda a, b: a - b, a, b)
    held(f"mul.lo.{kind} %x, %a, %b;", of, lambda a, b: a * b, a, b)
    held(f"mul.hi.{kind} %x, %a, %b;", of, lambda a, b: a * b >> bits, a, b)
    held(f"mad.lo.{kind} %x, %a, %b, %c;", of, lambda a, b, c: a * b + c, a, b, c)
    held(f"mad.hi.{kind} %x, %a, %b, %c;", of, lambda a, b, c: (a * b >> bits) + c, a, b, c)
    held(f"min.{kind} %x, %a, %b;", of, min, a, b)
    held(f"max.{kind} %x, %a, %b;", of, max, a, b)
    if bits < 64:
        wide = np.dtype(f"{of().dtype.kind}{bits // 4}").type
        held(f"mul.wide.{kind} %x, %a, %b;", wide, lambda a, b: a * b, a, b)
        held(
            f"mad.wide.{kind} %x, %a, %b, %c;",
            wide,
            lambda a, b, c: a * b + c,
            a,
            b,
            operands(wide, 1)[0].repeat(20)[: len(a)],
        )
    if kind[0] == "s":
        held(f"neg.{kind} %x, %a;", of, lambda a: -a, a)
        held(f"abs.{kind} %x, %a;", of, abs, a)


@pytest.mark.parametrize("kind", INTEGERS)
def test_division_is_towards_zero(kind: str) -> None:
    of = INTEGERS[kind]
    a, b = operands(of, 2, 1)
    b = np.where(b == 0, of(3), b)

    def quotient(a: int, b: int) -> int:
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)

    held(f"div.{kind} %x, %a, %b;", of, quotient, a, b)
    held(f"rem.{kind} %x, %a, %b;", of, lambda a, b: a - quotient(a, b) * b, a, b)
    kernel(
        f"div.{kind} %x, %a, %b; rem.{kind} %y, %a, %b;", [of, of], a, np.zeros_like(a)
    )  # of no known value, and no fault


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_shifts_stop_at_the_width(bits: int) -> None:
    unsigned, signed = np.dtype(f"u{bits // 8}").type, np.dtype(f"i{bits // 8}").type
    a = operands(unsigned, 2)[0]
    by = np.resize(np.array([0, 1, 5, bits - 1, bits, bits + 1, 255, 256, 2**31, 2**32 - 1, 13], np.uint32), len(a))
    held(f"shl.b{bits} %x, %a, %b;", unsigned, lambda a, n: a << min(n, bits), a, by)
    held(f"shr.u{bits} %x, %a, %b;", unsigned, lambda a, n: a >> min(n, bits), a, by)
    held(f"shr.s{bits} %x, %a, %b;", signed, lambda a, n: a >> min(n, bits), a.view(signed), by)


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_bit_fields(kind: str) -> None:
    of = INTEGERS[kind]
    bits = np.iinfo(of).bits
    chance = np.random.default_rng(2)
    starts = np.array([0, 1, 7, bits - 1, bits, bits + 3, 255, 256, 300, 31, 32, 12], np.uint32)
    lengths = np.array([0, 1, 8, bits - 1, bits, bits + 9, 255, 256 + 4, 31, 33, 5], np.uint32)
    first, count = (v.ravel() for v in np.meshgrid(starts, lengths))
    limits = np.iinfo(of)
    a = chance.integers(limits.min, limits.max, len(first), of, endpoint=True)
    b = chance.integers(limits.min, limits.max, len(first), of, endpoint=True)
    ones = (1 << bits) - 1

    def extract(a: int, first: int, count: int) -> int:
        """The ISA's loop over bits."""
        first, count = first & 255, count & 255
        sign = 0 if kind[0] == "u" or count == 0 else (a & ones) >> min(first + count - 1, bits - 1) & 1
        return sum(
            ((a & ones) >> first + i & 1 if i < count and first + i < bits else sign) << i for i in range(bits)
        )  # fmt: skip

    def insert(a: int, b: int, first: int, count: int) -> int:
        first, count = first & 255, count & 255
        for i in range(count):
            if first + i < bits:
                b = b & ~(1 << first + i) | ((a & ones) >> i & 1) << first + i
        return b

    held(f"bfe.{kind} %x, %a, %b, %c;", of, extract, a, first, count)
    if kind[0] == "u":
        held(f"bfi.b{bits} %x, %a, %b, %c, %d;", of, insert, a, b, first, count)


def test_bytes_are_permuted() -> None:
    a, b, how = np.random.default_rng(3).integers(0, 2**32, (3, 300), np.uint32)

    def permuted(a: int, b: int, how: int) -> int:
        eight = (a | b << 32).to_bytes(8, "little")
        out = []
        for i in range(4):
            one = how >> 4 * i & 15
            byte = eight[one & 7]
            out.append((255 if byte >> 7 else 0) if one & 8 else byte)
        return int.from_bytes(bytes(out), "little")

    held("prmt.b32 %x, %a, %b, %c;", np.uint32, permuted, a, b, how)


@pytest.mark.parametrize("mode", ["wrap", "clamp"])
def test_funnel_shifts(mode: str) -> None:
    a, b = operands(np.uint32, 2)
    by = np.resize(np.array([0, 1, 31, 32, 33, 40, 63, 64, 2**32 - 1, 9], np.uint32), len(a))

    def count(n: int) -> int:
        return n & 31 if mode == "wrap" else min(n, 32)

    held(f"shf.l.{mode}.b32 %x, %a, %b, %c;", np.uint32, lambda a, b, n: (b << 32 | a) << count(n) >> 32, a, b, by)
    held(f"shf.r.{mode}.b32 %x, %a, %b, %c;", np.uint32, lambda a, b, n: (b << 32 | a) >> count(n), a, b, by)


@pytest.mark.parametrize("table", [0x00, 0x80, 0xFE, 0x96, 0xCA, 0xE8, 0x1B, 0xFF])
def test_any_function_of_three_bits(table: int) -> None:
    a, b, c = operands(np.uint32, 3)

    def each(a: int, b: int, c: int) -> int:
        return sum((table >> ((a >> i & 1) << 2 | (b >> i & 1) << 1 | c >> i & 1) & 1) << i for i in range(32))

    held(f"lop3.b32 %x, %a, %b, %c, {table};", np.uint32, each, a, b, c)


@pytest.mark.parametrize("bits", [32, 64])
def test_counting_bits(bits: int) -> None:
    unsigned, signed = np.dtype(f"u{bits // 8}").type, np.dtype(f"i{bits // 8}").type
    a = operands(unsigned, 2)[0]

    def highest(a: int) -> int:
        return (~a if a < 0 else a).bit_length() - 1

    def up(a: int) -> int:
        return bits - 1 - highest(a) if highest(a) >= 0 else -1

    held(f"popc.b{bits} %x, %a;", np.uint32, int.bit_count, a)
    held(f"clz.b{bits} %x, %a;", np.uint32, lambda a: bits - a.bit_length(), a)
    held(f"brev.b{bits} %x, %a;", unsigned, lambda a: int(f"{a:0{bits}b}"[::-1], 2), a)
    held(f"bfind.u{bits} %x, %a;", np.uint32, highest, a)
    held(f"bfind.s{bits} %x, %a;", np.uint32, highest, a.view(signed))
    held(f"bfind.shiftamt.u{bits} %x, %a;", np.uint32, up, a)
    held(f"bfind.shiftamt.s{bits} %x, %a;", np.uint32, up, a.view(signed))
