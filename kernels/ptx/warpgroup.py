"""What `wgmma.mma_async` does: one step of 64 rows by N columns, computed for all the warpgroups given at once.

Written from the PTX ISA (9.7.15.5, register fragments, shared memory matrix layouts, matrix descriptors) and from nothing of
this project. Everything is in bytes first: whatever the type, one row of A or B is 32 bytes of the sum's direction, a register
of A is 4 of them, and only then are bytes read as numbers.

A descriptor names a start address, two strides and a swizzle. With T elements in 16 bytes, the element (i, k) of an operand
lies at start + offset(i, k), and the swizzle exchanges 16-byte pieces by the bits of that *address* (Swizzle<b, 4, 3>):

    K-major,  no swizzle   (i % 8) * 16 + (i / 8) * SBO + (k / T) * LBO + (k % T) elements
    K-major,  span S       (i % 8) *  S + (i / 8) * SBO + k elements                                  (LBO is not read)
    MN-major, no swizzle   (i % T) elements + (i / T) * SBO + (k % 8) * 16 + (k / 8) * LBO
    MN-major, span S       (i % W) elements + (i / W) * LBO + (k % 8) *  S + (k / 8) * SBO            (W elements in S bytes)

Products are exact and their sum is one float64 sum, rounded once to D's type: PTX leaves order and rounding of the
accumulation open, so a result agrees with a GPU's within the accumulator's error, and exactly for integers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from ulpgrad.errors import KernelError

Read = Callable[[int, NDArray[np.int64]], NDArray[np.uint8]]

LANES = 128
ROWS = 64
STEP = 32  # bytes of the sum's direction that one instruction reads
SPACE = 1 << 18  # bytes that a descriptor can name

BYTES = {"f16": 2, "bf16": 2, "tf32": 4, "e4m3": 1, "e5m2": 1, "s8": 1, "u8": 1}
DEPTH = {"f16": 16, "bf16": 16, "tf32": 8, "e4m3": 32, "e5m2": 32, "s8": 32, "u8": 32, "b1": 256}
SPAN = {0: 16, 1: 128, 2: 64, 3: 32}  # a descriptor's swizzle mode: bytes of the pieces' row
RESERVED = sum(1 << i for i in (14, 15, 30, 31, 46, 47, 48, *range(52, 62)))

_EIGHT = ("e4m3", "e5m2")
_INTEGER = ("s8", "u8")
KINDS = {
    *((d, "f16", "f16") for d in ("f16", "f32")),
    ("f32", "bf16", "bf16"),
    ("f32", "tf32", "tf32"),
    *((d, a, b) for d in ("f16", "f32") for a in _EIGHT for b in _EIGHT),
    *(("s32", a, b) for a in _INTEGER for b in _INTEGER),
    ("s32", "b1", "b1"),
}


def multiply(
    shape: str,
    kinds: tuple[str, str, str],
    d: Sequence[NDArray[np.uint32]],
    a: Sequence[NDArray[np.uint32]] | NDArray[np.uint64],
    b: NDArray[np.uint64],
    add: bool | NDArray[np.bool_],
    scale_a: int,
    scale_b: int,
    across_a: int,
    across_b: int,
    read: Read,
    *,
    saturate: bool = False,
) -> list[NDArray[np.uint32]]:
    """D = A @ B + D (or A @ B where `add` is false) of `wgmma.mma_async.sync.aligned.m64nNkK.D.A.B`.

    Args: `shape` as in "m64n256k16", `kinds` = types of (D, A, B). All arrays have one element a lane, 128 lanes a warpgroup in
    the order of the threads: `d` the accumulator's registers in order (N / 2 of them, N / 4 for f16), `a` four registers or
    descriptors, `b` descriptors, `add` one truth or one a lane. `scale_a`, `scale_b`: 1 or -1. `across_a`, `across_b`: 1 where
    the operand lies MN-major. `read(group, offsets)` gives the bytes of the shared memory that warpgroup `group` of the lanes
    sees. `saturate`: `.satfinite` of the integers. Returns the new registers of D.

    Raises `KernelError` for what the instruction does not take: a shape or types it has not, descriptors or `add` that differ
    within a warpgroup, reserved bits, a base offset, a start from which rows would leave the swizzle's span, a transpose of
    types that are not 16 bits wide.
    """
    n = _columns(shape, kinds)
    packed = kinds[0] == "f16"
    if len(d) != n // (4 if packed else 2):
        raise KernelError(
            f"wgmma {shape}: D has {len(d)} registers of {kinds[0]}, expected {n // (4 if packed else 2)}"
        )
    lanes = len(b)
    if lanes == 0 or lanes % LANES:
        raise KernelError(f"wgmma {shape}: {lanes} lanes, expected whole warpgroups of {LANES}")
    for name, scale, across, kind in (("a", scale_a, across_a, kinds[1]), ("b", scale_b, across_b, kinds[2])):
        if scale not in (1, -1) or (scale == -1 and kinds[0] == "s32"):
            raise KernelError(f"wgmma: imm-scale-{name} is {scale}, expected 1, or -1 for floating point")
        if across not in (0, 1) or (across and kind not in ("f16", "bf16")):
            raise KernelError(f"wgmma: imm-trans-{name} is {across} for {kind}: only f16 and bf16 can lie MN-major")
    groups = lanes // LANES
    if isinstance(a, np.ndarray):
        rows = _operand("a", a, ROWS, across_a, read)
    elif across_a:
        raise KernelError("wgmma: imm-trans-a with A in registers: only an operand in shared memory can lie MN-major")
    else:
        rows = _fragment(a, groups)
    columns = _operand("b", b, n, across_b, read)
    keep = np.broadcast_to(np.asarray(add, np.bool_), lanes).reshape(groups, LANES)
    if (keep != keep[:, :1]).any():
        raise KernelError("wgmma: scale-d differs between the threads of a warpgroup")
    with np.errstate(invalid="ignore", over="ignore"):
        products = numbers(kinds[1], rows) @ numbers(kinds[2], columns).transpose(0, 2, 1) * (scale_a * scale_b)
        before = _accumulator(np.stack(d).astype(np.uint32, copy=False), packed, kinds[0], groups, n)
        total = np.where(keep[:, :1, None], products + before, products)
        return _registers(total, packed, kinds[0], saturate)


def numbers(kind: str, rows: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Bytes (..., 32) of rows read as `kind`: float64 (..., K). Of tf32 the upper 19 bits count."""
    if kind == "b1":
        return np.unpackbits(rows, axis=-1, bitorder="little").astype(np.float64)
    if kind in _EIGHT:
        return _eight_bits(kind)[rows]
    rows = np.ascontiguousarray(rows)
    if kind == "f16":
        return rows.view(np.float16).astype(np.float64)
    if kind == "bf16":
        return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if kind == "tf32":
        return (rows.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
    return rows.view(np.int8 if kind == "s8" else np.uint8).astype(np.float64)


@cache
def _eight_bits(kind: str) -> NDArray[np.float64]:
    """All 256 values: e4m3 has no infinity and one NaN of each sign, e5m2 is the upper half of float16."""
    code = np.arange(256)
    if kind == "e5m2":
        return (code.astype(np.uint16) << 8).view(np.float16).astype(np.float64)
    exponent, fraction = code >> 3 & 15, code & 7
    size = np.where(exponent == 0, fraction * 2.0**-9, (8 + fraction) * 2.0 ** (exponent - 10.0))
    size[(code & 127) == 127] = np.nan
    return np.where(code & 128, -size, size)


def _columns(shape: str, kinds: tuple[str, str, str]) -> int:
    """N of `shape`, checked against `kinds`."""
    match = re.fullmatch(r"m64n(\d+)k(\d+)", shape)
    if match is None or kinds not in KINDS:
        raise KernelError(f"wgmma: no instruction {shape} of {'.'.join(kinds)}")
    n, k = int(match[1]), int(match[2])
    step = 16 if kinds[0] == "s32" and n > 32 else 8
    if not 8 <= n <= 256 or n % step or k != DEPTH[kinds[1]]:
        raise KernelError(
            f"wgmma: no shape {shape} for {'.'.join(kinds)}: N in steps of {step} up to 256, K is {DEPTH[kinds[1]]}"
        )
    return n


def _operand(name: str, descriptors: NDArray[np.uint64], count: int, across: int, read: Read) -> NDArray[np.uint8]:
    """The rows of an operand in shared memory: bytes (groups, count, 32)."""
    by_group = descriptors.reshape(-1, LANES)
    if (by_group != by_group[:, :1]).any():
        raise KernelError(f"wgmma: the descriptor of {name} differs between the threads of a warpgroup")
    return np.stack([read(i, places(int(one), count, across)) for i, one in enumerate(by_group[:, 0])])


@lru_cache(maxsize=256)
def places(descriptor: int, count: int, across: int) -> NDArray[np.int64]:
    """Where in shared memory the bytes (count, 32) of an operand's rows lie, for 16-bit elements where `across`."""
    if descriptor & RESERVED:
        raise KernelError(f"wgmma: the descriptor {descriptor:#018x} sets reserved bits {descriptor & RESERVED:#x}")
    if base := descriptor >> 49 & 7:
        raise KernelError(
            f"wgmma: the descriptor {descriptor:#018x} has base offset {base}: place tiles where their pattern begins"
        )
    start, leading, stride = ((descriptor >> bit & 0x3FFF) << 4 for bit in (0, 16, 32))
    span = SPAN[descriptor >> 62]
    i, byte = np.arange(count)[:, None], np.arange(STEP)[None, :]
    if across:
        k, wide = byte // 2, span // 2  # elements in a row of the atom
        if span > 16 and start % span + min(count * 2, span) > span:
            raise KernelError(
                f"wgmma: an MN-major operand at {start:#x} leaves the rows of {span} bytes of its swizzle"
            )
        by_block, by_eight = (stride, leading) if span == 16 else (leading, stride)
        offset = i % wide * 2 + i // wide * by_block + k % 8 * span + k // 8 * by_eight + byte % 2
    elif span == 16:
        offset = i % 8 * 16 + i // 8 * stride + byte // 16 * leading + byte % 16
    else:
        if start % span + STEP > span:
            raise KernelError(f"wgmma: a K-major operand at {start:#x} leaves the rows of {span} bytes of its swizzle")
        offset = i % 8 * span + i // 8 * stride + byte
    found = swizzled((start + offset) % SPACE, span)
    found.flags.writeable = False
    return found


def swizzled(address: NDArray[np.int64], span: int) -> NDArray[np.int64]:
    """Shared memory addresses after the swizzle of `span` bytes (16: none): the 16-byte piece's number in its row of `span`
    bytes, exclusive-or the number of the 128-byte line."""
    return address ^ (((address >> 7) & (span // 16 - 1)) << 4)


# A lane is (warp, g, t) of 4 x 8 x 4. A row of D or of A is (warp, half, g) of 4 x 2 x 8.


def _fragment(registers: Sequence[NDArray[np.uint32]], groups: int) -> NDArray[np.uint8]:
    """A's rows from four registers a lane: register (side, half) holds bytes 4t to 4t + 3 of 16-byte side `side`."""
    if len(registers) != 4:
        raise KernelError(f"wgmma: A has {len(registers)} registers, expected 4")
    held = np.stack(registers).astype("<u4", copy=False).view(np.uint8).reshape(2, 2, groups, 4, 8, 4, 4)
    return np.ascontiguousarray(held.transpose(2, 3, 1, 4, 0, 5, 6)).reshape(groups, ROWS, STEP)


def _accumulator(registers: NDArray[np.uint32], packed: bool, kind: str, groups: int, n: int) -> NDArray[np.float64]:
    """D (groups, 64, n) of its registers: (eight columns, half of the rows, one of two columns)."""
    if packed:
        halves = registers.view(np.float16).reshape(n // 8, 2, groups, 4, 8, 4, 2)
        return halves.transpose(2, 3, 1, 4, 0, 5, 6).reshape(groups, ROWS, n).astype(np.float64)
    words = registers.view(np.int32 if kind == "s32" else np.float32).reshape(n // 8, 2, 2, groups, 4, 8, 4)
    return words.transpose(3, 4, 1, 5, 0, 6, 2).reshape(groups, ROWS, n).astype(np.float64)


def _registers(total: NDArray[np.float64], packed: bool, kind: str, saturate: bool) -> list[NDArray[np.uint32]]:
    """The registers of D (groups, 64, n), rounded once (or wrapped, or limited) to its type."""
    groups, _, n = total.shape
    parts = total.reshape(groups, 4, 2, 8, n // 8, 4, 2)  # group, warp, half, g, eight columns, t, one of two
    if packed:
        halves = np.ascontiguousarray(parts.transpose(4, 2, 0, 1, 3, 5, 6), np.float16)
        return list(halves.view(np.uint32).reshape(n // 4, groups * LANES))
    words = parts.transpose(4, 2, 6, 0, 1, 3, 5).reshape(n // 2, groups * LANES)
    if kind == "s32":
        exact = np.clip(words, -(2.0**31), 2.0**31 - 1) if saturate else words
        return list(exact.astype(np.int64).astype(np.uint32))
    return list(words.astype(np.float32).view(np.uint32))
