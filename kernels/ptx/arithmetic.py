"""What PTX's arithmetic is where NumPy has no one operation for it: exact multiply-adds, conversions, pieces of words.

Values are arrays with an element for each thread, or single values that all threads share. Written after the PTX ISA,
sections 9.7.1 to 9.7.9. Approximations (`ex2.approx`, `div.full`, ...) are rounded once from a float64: a card is up to 2 units
of the last place off.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad import formats
from ulpgrad.errors import KernelError

F4, F8 = np.float32, np.float64


def _odd(total: Any, error: Any) -> Any:
    """A float64 sum rounded to odd, of one rounded to nearest and what that lost: rounding it again, to fewer bits, is then
    rounding once."""
    bits = np.asarray(total).view(np.int64)
    away = np.where((error > 0) == (total > 0), 1, -1)
    off = (error != 0) & ((bits & 1) == 0) & np.isfinite(total)
    return np.where(off, bits + away, bits).view(F8)


def _sum(a: Any, b: Any) -> tuple[Any, Any]:
    """a + b in float64, and what rounding lost."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def fma(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once, in float16 or float32."""
    return fma_wide(a, b, c).astype(a.dtype)


def fma_wide(a: Any, b: Any, c: Any) -> Any:
    """a * b + c of float16 or float32 in float64, rounded to odd: the next rounding is the only one."""
    return _odd(*_sum(a.astype(F8) * b.astype(F8), c.astype(F8)))


def towards(name: str, how: str, a: Any, b: Any, c: Any = None) -> Any:
    """add, sub, mul and fma of float32 towards zero (rz), down (rm) or up (rp)."""
    a, b = a.astype(F8), b.astype(F8)
    match name:
        case "add" | "sub":
            exact = _odd(*_sum(a, b if name == "add" else -b))
        case "mul":
            exact = a * b
        case "fma" | "mad":
            exact = _odd(*_sum(a * b, c.astype(F8)))
        case _:
            raise KernelError(f"PTX's {name}.{how}.f32 is not known to the machine")
    return directed(exact, F4, how)


def above_zero(x: Any) -> Any:
    """.relu: what is below zero as zero; NaN stays."""
    return np.where((x > 0) | np.isnan(x), x, x.dtype.type(0))


def _halves(x: Any) -> tuple[Any, Any]:
    """64-bit integers as the sum of two float64."""
    return _sum((x >> x.dtype.type(32)).astype(F8) * F8(2.0**32), (x & x.dtype.type(0xFFFFFFFF)).astype(F8))


def to_odd(x: Any) -> Any:
    """64-bit integers to float64, rounded to odd."""
    return _odd(*_halves(x))


def from_long(x: Any, how: str) -> Any:
    """64-bit integers to float64."""
    near, error = _halves(x)
    if how == "rn":
        return near
    down, up = (
        np.where(wrong, np.nextafter(near, F8(to)), near) for wrong, to in ((error < 0, -np.inf), (error > 0, np.inf))
    )
    return {"rm": down, "rp": up, "rz": np.where(near < 0, up, down)}[how]


def fma64(a: Any, b: Any, c: Any) -> Any:
    """a * b + c rounded once, in float64 (Boldo and Melquiond's way); products near overflow are rounded twice."""
    product, low = _product(a, b)
    high, low_sum = _sum(c, low)
    total, rest = _sum(product, high)
    exact = total + _odd(*_sum(low_sum, rest))
    return np.where(np.isfinite(exact), exact, a * b + c)


def _product(a: Any, b: Any) -> tuple[Any, Any]:
    """a * b in float64, and what rounding lost (Dekker)."""
    product = a * b
    ah, bh = a * 134217729.0, b * 134217729.0
    ah, bh = ah - (ah - a), bh - (bh - b)
    al, bl = a - ah, b - bh
    return product, ((ah * bh - product) + ah * bl + al * bh) + al * bl


def flushed(x: Any) -> Any:
    """Subnormal float32 values as zeros of their sign (.ftz)."""
    return np.where(np.abs(x) < F4(2.0**-126), np.copysign(F4(0), x), x)


def saturated(x: Any) -> Any:
    """Into 0 to 1, NaN as 0 (.sat)."""
    return np.where(np.isnan(x), x.dtype.type(0), np.clip(x, 0, 1)).astype(x.dtype)


def least(a: Any, b: Any) -> Any:
    """min of floats: the other one where one is NaN, and -0 below +0."""
    found = np.fmin(a, b)
    return np.where((a == 0) & (b == 0), np.where(np.signbit(a), a, b), found)


def greatest(a: Any, b: Any) -> Any:
    found = np.fmax(a, b)
    return np.where((a == 0) & (b == 0), np.where(np.signbit(a), b, a), found)


def least_or_nan(a: Any, b: Any) -> Any:
    return np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), least(a, b))


def greatest_or_nan(a: Any, b: Any) -> Any:
    return np.where(np.isnan(a) | np.isnan(b), a.dtype.type(np.nan), greatest(a, b))


def quotient(a: Any, b: Any) -> Any:
    """a / b of integers towards zero; all ones for a divisor of zero."""
    safe = np.where(b == 0, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        return np.where(b == 0, ~a.dtype.type(0), a // safe).astype(a.dtype)
    found = a // safe
    found = found + ((found < 0) & (found * safe != a)).astype(a.dtype)
    return np.where(b == 0, a.dtype.type(-1), found).astype(a.dtype)


def remainder(a: Any, b: Any) -> Any:
    return np.where(b == 0, a, a - quotient(a, b) * b).astype(a.dtype)


def high(a: Any, b: Any) -> Any:
    """The upper half of a product of integers."""
    if a.dtype.itemsize < 8:
        wide = np.dtype(f"{a.dtype.kind}{2 * a.dtype.itemsize}")
        return (a.astype(wide) * b.astype(wide) >> wide.type(8 * a.dtype.itemsize)).astype(a.dtype)
    half, ones = np.uint64(32), np.uint64(0xFFFFFFFF)
    x, y = np.asarray(a).view(np.uint64), np.asarray(b).view(np.uint64)
    xh, xl, yh, yl = x >> half, x & ones, y >> half, y & ones
    middle = (xl * yl >> half) + (xh * yl & ones) + (xl * yh & ones)
    found = xh * yh + (xh * yl >> half) + (xl * yh >> half) + (middle >> half)
    if a.dtype.kind == "u":
        return found
    return (found.view(np.int64) - np.where(a < 0, b, 0) - np.where(b < 0, a, 0)).astype(np.int64)


def shifted_left(a: Any, by: Any) -> Any:
    bits = 8 * a.dtype.itemsize
    return np.where(by >= bits, a.dtype.type(0), a << (by & type(by.dtype.type(0))(bits - 1)).astype(a.dtype))


def shifted_right(a: Any, by: Any) -> Any:
    bits = 8 * a.dtype.itemsize
    if a.dtype.kind == "i":
        return a >> np.minimum(by, by.dtype.type(bits - 1)).astype(a.dtype)
    return np.where(by >= bits, a.dtype.type(0), a >> (by & by.dtype.type(bits - 1)).astype(a.dtype))


def funnel(low: Any, high: Any, by: Any, to_left: bool, wrap: bool) -> Any:
    """shf: 32 bits of a 64-bit word."""
    count = (by & np.uint32(31)) if wrap else np.minimum(by, np.uint32(32))
    word = low.astype(np.uint64) | high.astype(np.uint64) << np.uint64(32)
    if to_left:
        return (word << count.astype(np.uint64) >> np.uint64(32)).astype(np.uint32)
    return (word >> count.astype(np.uint64)).astype(np.uint32)


def extract(a: Any, at: Any, length: Any) -> Any:
    """bfe: bits of a word from `at` on, with a sign if the type has one."""
    bits = 8 * a.dtype.itemsize
    word = np.asarray(a).view(f"u{a.dtype.itemsize}").astype(np.uint64)
    first, count = (at & 255).astype(np.int64), (length & 255).astype(np.int64)
    ones = np.where(count >= 64, ~np.uint64(0), (np.uint64(1) << (count & 63).astype(np.uint64)) - np.uint64(1))
    found = np.where(first < bits, word >> np.minimum(first, 63).astype(np.uint64), np.uint64(0)) & ones
    if a.dtype.kind == "i":
        last = np.minimum(first + count - 1, bits - 1)
        sign = (count > 0) & ((word >> np.clip(last, 0, 63).astype(np.uint64) & np.uint64(1)) != 0)
        kept = np.where(first < bits, np.minimum(count, bits - first), 0)
        above = np.where(kept >= 64, np.uint64(0), ~np.uint64(0) << (kept & 63).astype(np.uint64))
        found = np.where(sign, found | above, found)
    return found.astype(f"u{a.dtype.itemsize}").view(a.dtype)


def inserted(a: Any, into: Any, at: Any, length: Any) -> Any:
    """bfi: the low bits of `a` in a word from `at` on."""
    bits = 8 * into.dtype.itemsize
    first, count = (at & 255).astype(np.uint64), (length & 255).astype(np.uint64)
    ones = np.where(count >= 64, ~np.uint64(0), (np.uint64(1) << (count & np.uint64(63))) - np.uint64(1))
    mask = np.where(first < bits, ones << (first & np.uint64(63)), np.uint64(0))
    moved = a.astype(np.uint64) << (first & np.uint64(63))
    return ((moved & mask) | (into.astype(np.uint64) & ~mask)).astype(into.dtype)


def permuted(a: Any, b: Any, how: Any) -> Any:
    """prmt: four bytes of eight."""
    word = a.astype(np.uint64) | b.astype(np.uint64) << np.uint64(32)
    found: Any = np.uint32(0)
    for i in range(4):
        one = how >> np.uint32(4 * i)
        byte = (word >> ((one & np.uint32(7)).astype(np.uint64) * np.uint64(8)) & np.uint64(255)).astype(np.uint32)
        signs = np.where((byte & np.uint32(128)) != 0, np.uint32(255), np.uint32(0))
        found = found | np.where((one & np.uint32(8)) != 0, signs, byte) << np.uint32(8 * i)
    return found


def any_logic(a: Any, b: Any, c: Any, table: int) -> Any:
    """lop3: a function of three bits, by its table."""
    found = a.dtype.type(0)
    for i in range(8):
        if table >> i & 1:
            found = found | (a if i & 4 else ~a) & (b if i & 2 else ~b) & (c if i & 1 else ~c)
    return found


def reversed_bits(a: Any) -> Any:
    out = a.dtype.type(0)
    bits = 8 * a.dtype.itemsize
    for i in range(bits):
        out = out | (a >> a.dtype.type(i) & a.dtype.type(1)) << a.dtype.type(bits - 1 - i)
    return out


def leading_zeros(a: Any) -> Any:
    bits = 8 * a.dtype.itemsize
    found: Any = np.uint32(0)
    seen: Any = np.bool_(False)
    for i in range(bits - 1, -1, -1):
        seen = seen | ((a >> a.dtype.type(i) & a.dtype.type(1)) != 0)
        found = found + np.where(seen, np.uint32(0), np.uint32(1))
    return found


def highest_bit(a: Any, shift: bool = False) -> Any:
    """bfind: the place of the highest bit that is not the sign, or how far it is from the top; all ones where there is none."""
    word = np.where(a < 0, ~a, a).view(f"u{a.dtype.itemsize}") if a.dtype.kind == "i" else a
    zeros = leading_zeros(word)
    if shift:
        return np.where(word == 0, ~np.uint32(0), zeros)
    return np.uint32(8 * a.dtype.itemsize - 1) - zeros


def byte_dot(a: Any, b: Any, c: Any, kinds: tuple[str, str]) -> Any:
    """dp4a: the sum of products of four bytes each, and c."""
    total = c.astype(np.int64)
    for i in range(4):
        x, y = ((v >> np.uint32(8 * i)).astype(np.uint8) for v in (a, b))
        x, y = (v.view(np.int8) if k.startswith("s") else v for v, k in zip((x, y), kinds, strict=True))
        total = total + x.astype(np.int64) * y.astype(np.int64)
    return total.astype(np.uint32)


def widened(bits: Any) -> Any:
    """bfloat16, as uint16, in float32."""
    return np.asarray(bits.astype(np.uint32) << np.uint32(16)).view(F4)


def to_bfloat16(x: Any, how: str = "rn") -> Any:
    """float32 or float64 to bfloat16's bits."""
    x = np.asarray(x if x.dtype == F4 else _narrowed(x))
    bits = x.view(np.uint32)
    if how == "rn":
        found = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    else:  # towards zero
        found = bits
    return np.where(np.isnan(x), np.uint16(0x7FFF), (found >> np.uint32(16)).astype(np.uint16))


def _narrowed(x: Any) -> Any:
    """float64 to float32 by rounding to odd, to be rounded again."""
    near = x.astype(F4)
    bits = near.view(np.uint32)
    error = x - near.astype(F8)
    away = np.where((error > 0) == (x > 0), 1, -1).astype(np.int64)
    off = (error != 0) & ((bits & 1) == 0) & np.isfinite(near)
    return np.where(off, (bits + away).astype(np.uint32), bits).view(F4)


def to_tf32(x: Any) -> Any:
    """cvt.rna.tf32: 10 bits of fraction, halves away from zero."""
    bits = np.asarray(x).view(np.uint32)
    return np.where(np.isfinite(x), (bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000), bits)


EIGHT = {"e4m3": formats.float8_e4m3fn, "e5m2": formats.float8_e5m2}
_MOST = {"e4m3": F4(448), "e5m2": F4(57344)}


def to_eight(x: Any, kind: str) -> Any:
    """8-bit floats' codes, with .satfinite."""
    return EIGHT[kind].encode(np.clip(np.asarray(x, F4), -_MOST[kind], _MOST[kind])).astype(np.uint8)


def from_eight(codes: Any, kind: str) -> Any:
    return EIGHT[kind].decode(np.asarray(codes, np.uint8)).astype(F4)


_ROUND = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}


def whole(x: Any, how: str) -> Any:
    """A float without fraction, by cvt's rounding of integers."""
    return _ROUND[how](x)


def to_integer(x: Any, how: str, kind: Any, from_double: bool = False) -> Any:
    """Float to integer: rounded, cut off at the type's limits, NaN as 0 (from or to 64 bits as the type's highest bit)."""
    kind = np.dtype(kind)
    limits = np.iinfo(kind)
    rounded = _ROUND[how](np.asarray(x, F8))
    inside = (rounded >= float(limits.min)) & (rounded < float(limits.max) + 1)
    found = np.where(inside, rounded, 0).astype(kind)
    found = np.where(rounded >= float(limits.max) + (limits.bits < 53), kind.type(limits.max), found)
    found = np.where(rounded < float(limits.min), kind.type(limits.min), found)
    top = np.dtype(f"u{kind.itemsize}").type(1 << limits.bits - 1).view(kind)
    empty = top if limits.bits == 64 or from_double else kind.type(0)
    return np.where(np.isnan(x), empty, found).astype(kind)


def directed(x: Any, kind: Any, how: str) -> Any:
    """A float to a narrower one towards zero (rz), down (rm) or up (rp)."""
    near = np.asarray(x, F8).astype(kind)
    back = near.astype(F8)
    low, top = np.nextafter(near, kind(-np.inf)), np.nextafter(near, kind(np.inf))
    down, up = np.where(back > x, low, near), np.where(back < x, top, near)
    return {"rm": down, "rp": up, "rz": np.where(x < 0, up, down)}[how].astype(kind)


def saturating(a: Any, kind: Any) -> Any:
    """An integer cut off at the limits of another type."""
    limits = np.iinfo(kind)
    wide = a.astype(object) if a.dtype.itemsize == 8 else a.astype(np.int64)
    return np.clip(wide, limits.min, limits.max).astype(kind)
