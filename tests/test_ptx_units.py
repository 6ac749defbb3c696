"""wgmma of the PTX machine against plain products, and together with what tensor copies leave in shared memory.

The operands are laid out here a second time, from the documentation's tables of swizzled pieces and its worked examples, so that
the machine's address formula and this file have to agree without sharing a line.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx import warpgroup

sys.path.insert(0, str(Path(__file__).parent))
from test_ptx_tensor_map import BF16, SWIZZLED, loaded, tiled

MODE = {0: 0, 128: 1, 64: 2, 32: 3}  # in a matrix descriptor

# Values that each type has, as (bits, value); small enough that float64 holds every sum below exactly.
EIGHT = {
    "e4m3": {
        0x00: 0.0,
        0x38: 1.0,
        0xB8: -1.0,
        0x40: 2.0,
        0x30: 0.5,
        0x3C: 1.5,
        0xC4: -3.0,
        0x08: 2.0**-6,
        0x01: 2.0**-9,
        0x60: 32.0,
    },
    "e5m2": {
        0x00: 0.0,
        0x3C: 1.0,
        0xBC: -1.0,
        0x40: 2.0,
        0x38: 0.5,
        0x3E: 1.5,
        0xC2: -3.0,
        0x01: 2.0**-16,
        0x50: 32.0,
    },
}


def swizzle_lines(image: np.ndarray, span: int) -> np.ndarray:
    """A linear image whose first byte lies where the pattern begins, with its pieces exchanged line by line."""
    lines = image.reshape(-1, 8, 16)
    table = SWIZZLED[span]
    return np.stack([line[table[i % len(table)]] for i, line in enumerate(lines)]).reshape(-1)


def draw(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Bytes (rows, K * size) of random numbers of `kind`, and the numbers."""
    if kind in EIGHT:
        codes = rng.choice(list(EIGHT[kind]), shape).astype(np.uint8)
        return codes, np.vectorize(EIGHT[kind].get, otypes=[float])(codes)
    if kind == "b1":
        codes = rng.integers(0, 256, (shape[0], shape[1] // 8), np.uint8)
        return codes, (codes[:, :, None] >> np.arange(8) & 1).reshape(shape).astype(float)
    if kind in ("s8", "u8"):
        values = rng.integers(-128, 128, shape) if kind == "s8" else rng.integers(0, 256, shape)
        return values.astype(np.uint8), values.astype(float)
    values = rng.integers(-64, 65, shape) / 16.0
    if kind == "f16":
        return values.astype(np.float16).view(np.uint8), values
    words = values.astype(np.float32).view(np.uint32)
    if kind == "bf16":
        return (words >> 16).astype(np.uint16).view(np.uint8), values
    return (words | rng.integers(0, 1 << 13, shape, np.uint32)).view(
        np.uint8
    ), values  # tf32 does not read the lower 13


def lay_along(rows: np.ndarray, span: int, start: int) -> tuple[np.ndarray, list[int]]:
    """K-major: the image of `rows` (R, bytes) placed at `start`, and the descriptor of each step of 32 bytes."""
    count, wide = rows.shape
    if span == 0:  # core matrices of 8 rows by 16 bytes: rows of cores first, then along K
        cores = rows.reshape(count // 8, 8, wide // 16, 16).transpose(2, 0, 1, 3)
        leading, stride = count * 16, 128
        return np.ascontiguousarray(cores).reshape(-1), [
            descriptor(start + k * 2 * leading, leading, stride, 0) for k in range(wide // 32)
        ]
    atoms = rows.reshape(count, wide // span, span).transpose(1, 0, 2)
    image = swizzle_lines(np.ascontiguousarray(atoms).reshape(-1), span)
    starts = [start + k // span * count * span + k % span for k in range(0, wide, 32)]
    return image, [descriptor(at, 16, 8 * span, MODE[span]) for at in starts]


def lay_across(rows: np.ndarray, span: int, start: int) -> tuple[np.ndarray, list[int]]:
    """MN-major, of 16-bit elements: the same of the transposed matrix, in atoms of 8 values of K by `span` bytes of rows."""
    count, wide = rows.shape
    by_k = rows.view(np.uint16).T  # (K, R)
    depth, across = wide // 2, (span or 16) // 2
    atoms = by_k.reshape(depth // 8, 8, count // across, across).transpose(2, 0, 1, 3)  # block of rows, eight of K
    image = np.ascontiguousarray(atoms).reshape(-1).view(np.uint8)
    eight, block = 16 * across, depth // 8 * 16 * across
    leading, stride = (eight, block) if span == 0 else (block, eight)
    starts = [start + k // 8 * eight for k in range(0, depth, 16)]
    return swizzle_lines(image, span), [descriptor(at, leading, stride, MODE[span]) for at in starts]


def descriptor(start: int, leading: int, stride: int, mode: int) -> int:
    return (start & 0x3FFFF) >> 4 | leading >> 4 << 16 | stride >> 4 << 32 | mode << 62


def registers_of(matrix: np.ndarray, kind: str) -> list[np.ndarray]:
    """D (64, N) as the 128 threads hold it, thread by thread and element by element (PTX ISA figure 149)."""
    n = matrix.shape[1]
    held = np.empty((n // 2, 128), {"f16": np.float16, "f32": np.float32, "s32": np.int32}[kind])
    for lane, i in itertools.product(range(128), range(n // 2)):
        row = lane // 32 * 16 + lane % 32 // 4 + 8 * (i // 2 % 2)
        held[i, lane] = matrix[row, i // 4 * 8 + lane % 4 * 2 + i % 2]
    if kind != "f16":
        return list(held.view(np.uint32))
    bits = held.view(np.uint16).astype(np.uint32)
    return list(bits[0::2] | bits[1::2] << 16)


def fragments_of(rows: np.ndarray) -> list[np.ndarray]:
    """A's bytes (64, 32) as four registers of 128 threads (PTX ISA figures 148, 150 and 152: the same in bytes)."""
    held = np.empty((4, 128), np.uint32)
    for lane, r in itertools.product(range(128), range(4)):
        row, byte = lane // 32 * 16 + lane % 32 // 4 + 8 * (r % 2), r // 2 * 16 + lane % 4 * 4
        held[r, lane] = rows[row, byte : byte + 4].copy().view(np.uint32)[0]
    return list(held)


def stepped(before: np.ndarray, left: np.ndarray, right: np.ndarray, kind: str, depth: int) -> np.ndarray:
    """D after all steps, rounded after each."""
    total = before.astype(float)
    for k in range(0, left.shape[1], depth):
        total = total + left[:, k : k + depth] @ right[:, k : k + depth].T
        if kind != "s32":
            total = total.astype(np.float16 if kind == "f16" else np.float32).astype(float)
    return total


@pytest.mark.parametrize("span", [0, 32, 64, 128])
@pytest.mark.parametrize("kinds", sorted(warpgroup.KINDS), ids=".".join)
def test_products_of_every_kind(kinds: tuple[str, str, str], span: int) -> None:
    rng = np.random.default_rng(span + sum(map(ord, "".join(kinds))))
    n = {0: 8, 32: 64, 64: 256, 128: 64}[span]
    depth = warpgroup.DEPTH[kinds[1]]
    layouts = [(x, y) for x in (0, 1) for y in (0, 1)] if kinds[1] in ("f16", "bf16") else [(0, 0)]
    a_bytes, a = draw(kinds[1], (64, depth * 4), rng)
    b_bytes, b = draw(kinds[2], (n, depth * 4), rng)
    d = np.round(rng.normal(size=(64, n)) * 8)
    expected = registers_of(stepped(d, a, b, kinds[0], depth), kinds[0])
    memory = np.zeros(1 << 18, np.uint8)
    for across_a, across_b in layouts:
        if across_b and n * 2 < span:
            continue
        a_image, a_steps = (lay_across if across_a else lay_along)(a_bytes, span, 2048)
        b_image, b_steps = (lay_across if across_b else lay_along)(b_bytes, span, 2048 + len(a_image))
        memory[2048 : 2048 + len(a_image) + len(b_image)] = np.concatenate([a_image, b_image])
        for in_registers in (False, True) if not across_a else (False,):
            got = registers_of(d, kinds[0])
            for k, (at_a, at_b) in enumerate(zip(a_steps, b_steps, strict=True)):
                left = fragments_of(a_bytes[:, k * 32 : k * 32 + 32]) if in_registers else np.full(128, at_a, np.uint64)
                right = np.full(128, at_b, np.uint64)
                got = warpgroup.multiply(
                    f"m64n{n}k{depth}",
                    kinds,
                    got,
                    left,
                    right,
                    True,
                    1,
                    1,
                    across_a,
                    across_b,
                    lambda _, at: memory[at],
                )
            np.testing.assert_array_equal(got, expected)


def test_warpgroups_have_their_own_memory_descriptors_and_truth() -> None:
    rng = np.random.default_rng(1)
    memory, expected, starts = [], [], [1024, 4096]
    for group, start in enumerate(starts):
        a_bytes, a = draw("bf16", (64, 16), rng)
        b_bytes, b = draw("bf16", (8, 16), rng)
        a_image, _ = lay_along(a_bytes, 32, start)
        b_image, _ = lay_along(b_bytes, 32, start + 2048)
        memory.append(np.concatenate([np.zeros(start, np.uint8), a_image, b_image]))
        expected.append(a @ b.T * -1 + group * 5.0)  # the second group adds what it held, the first does not

    lanes = np.arange(256) // 128
    left, right = (np.array([descriptor(s + off, 16, 256, 3) for s in starts], np.uint64)[lanes] for off in (0, 2048))
    held = [np.full(256, 5.0, np.float32).view(np.uint32)] * 4
    got = warpgroup.multiply(
        "m64n8k16",
        ("f32", "bf16", "bf16"),
        held,
        left,
        right,
        lanes == 1,
        -1,
        1,
        0,
        0,
        lambda group, at: memory[group][at],
    )
    for group in (0, 1):
        part = [register[group * 128 : group * 128 + 128] for register in got]
        np.testing.assert_array_equal(part, registers_of(expected[group], "f32"))


def test_integers_wrap_or_saturate() -> None:
    memory = np.full(4096, 127, np.uint8)
    at = np.full(128, descriptor(0, 16, 256, 3), np.uint64)
    held = [np.full(128, 2**31 - 10, np.uint32)] * 4
    kinds = ("s32", "s8", "s8")
    total = 2**31 - 10 + 32 * 127 * 127
    wrapped = warpgroup.multiply("m64n8k32", kinds, held, at, at, True, 1, 1, 0, 0, lambda _, x: memory[x])
    assert all((r == total).all() for r in wrapped)
    limited = warpgroup.multiply(
        "m64n8k32", kinds, held, at, at, True, 1, 1, 0, 0, lambda _, x: memory[x], saturate=True
    )
    assert all((r == 2**31 - 1).all() for r in limited)


def test_eight_bit_values() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(8, 32)
    four, five = (warpgroup.numbers(kind, codes).reshape(-1) for kind in ("e4m3", "e5m2"))
    for table, values in ((EIGHT["e4m3"], four), (EIGHT["e5m2"], five)):
        assert all(values[code] == value for code, value in table.items())
    np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(four)), [0x7F, 0xFF])
    assert np.isnan(four[0x7F])
    np.testing.assert_array_equal(five[[0x7C, 0xFC, 0x7D, 0xFF]], [np.inf, -np.inf, np.nan, np.nan])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shape": "m64n12k16"}, "no shape"),
        ({"shape": "m64n264k16"}, "no shape"),
        ({"shape": "m64n8k8"}, "no shape"),
        ({"kinds": ("f16", "bf16", "bf16")}, "no instruction"),
        ({"start": 1024 + 112}, "leaves the rows"),
        ({"start": 1024 + 64, "across_b": 1}, "leaves the rows"),
        ({"bits": 1 << 49}, "base offset"),
        ({"bits": 1 << 14}, "reserved"),
        ({"bits": 1 << 60}, "reserved"),
        ({"scale_b": 2}, "imm-scale-b"),
        ({"across_a": 1, "kinds": ("f32", "tf32", "tf32"), "shape": "m64n64k8"}, "imm-trans-a"),
        ({"registers": 31}, "registers"),
        ({"uneven": True}, "differs"),
    ],
)
def test_what_wgmma_does_not_take(change: dict[str, object], words: str) -> None:
    case = {"shape": "m64n64k16", "kinds": ("f32", "bf16", "bf16"), "start": 1024, "bits": 0, "scale_b": 1}
    case |= {"across_a": 0, "across_b": 0, "registers": 32, "uneven": False} | change
    at = np.full(128, descriptor(case["start"], 16, 1024, 1) | case["bits"], np.uint64)
    at[77] += np.uint64(case["uneven"])
    held = [np.zeros(128, np.uint32)] * case["registers"]
    memory = np.zeros(1 << 18, np.uint8)
    with pytest.raises(KernelError, match=words):
        warpgroup.multiply(
            case["shape"],
            case["kinds"],
            held,
            at,
            at,
            True,
            1,
            case["scale_b"],
            case["across_a"],
            case["across_b"],
            lambda _, x: memory[x],
        )


def test_a_tile_copied_with_a_swizzle_is_a_canonical_operand() -> None:
    """The two units agree: what a tensor copy leaves is what wgmma reads, K-major and MN-major."""
    rng = np.random.default_rng(5)
    a_bytes, a = draw("bf16", (64, 64), rng)
    b_bytes, b = draw("bf16", (128, 64), rng)
    memory = np.zeros(32768, np.uint8)
    memory[1024 : 1024 + 8192] = loaded(
        tiled(a_bytes.view(np.uint16), BF16, (64, 64), swizzle=3), a_bytes.reshape(-1), (0, 0)
    )
    by_k = np.ascontiguousarray(b_bytes.view(np.uint16).T)  # (K, N): N is innermost, 64 of it in a box
    for block in (0, 1):
        copied = loaded(tiled(by_k, BF16, (64, 64), swizzle=3), by_k.view(np.uint8).reshape(-1), (64 * block, 0))
        memory[16384 + 8192 * block : 24576 + 8192 * block] = copied
    held = [np.zeros(128, np.uint32)] * 64
    for k in range(4):
        left, right = descriptor(1024 + 32 * k, 16, 1024, 1), descriptor(16384 + 2048 * k, 8192, 1024, 1)
        both = [np.full(128, one, np.uint64) for one in (left, right)]
        held = warpgroup.multiply(
            "m64n128k16", ("f32", "bf16", "bf16"), held, *both, k > 0, 1, 1, 0, 1, lambda _, x: memory[x]
        )
    np.testing.assert_array_equal(held, registers_of(a @ b.T, "f32"))
