"""What the 32 threads of a warp do together: shuffles, votes, and matrices that are spread over their registers.

Registers come as arrays with an element for each thread, whole warps in order. Written after the PTX ISA, sections 9.7.9
(shuffles, votes, redux) and 9.7.14 (matrix fragments).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad.kernels.ptx import arithmetic
from ulpgrad.kernels.ptx.memory import Fault

LANES = np.arange(32)


def _warps(x: Any) -> Any:
    return x.reshape(-1, 32)


def shuffled(mode: str, x: Any, by: Any, bounds: Any) -> tuple[Any, Any]:
    """shfl: another thread's value, and whether there was such a thread in reach."""
    warps, step = _warps(x), _warps(by.astype(np.int64) & 31)
    clamp, segment = _warps(bounds.astype(np.int64) & 31), _warps(bounds.astype(np.int64) >> 8 & 31)
    most = (LANES & segment) | (clamp & ~segment)
    least = LANES & segment
    match mode:
        case "up":
            source = LANES - step
            inside = source >= most
        case "down":
            source = LANES + step
            inside = source <= most
        case "bfly":
            source = LANES ^ step
            inside = source <= most
        case _:
            source = least | (step & ~segment)
            inside = source <= most
    source = np.where(inside, source, LANES)
    return np.take_along_axis(warps, source, 1).ravel(), inside.ravel()


OPERATIONS = {
    "add": np.add, "min": np.minimum, "max": np.maximum, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip


def reduced(op: str, x: Any) -> Any:
    """redux: one value of the whole warp."""
    return np.repeat(OPERATIONS[op].reduce(_warps(x), 1, dtype=x.dtype), 32)


def voted(how: str, p: Any) -> Any:
    warps = _warps(p)
    match how:
        case "all":
            return np.repeat(warps.all(1), 32)
        case "any":
            return np.repeat(warps.any(1), 32)
        case "uni":
            return np.repeat(warps.all(1) | ~warps.any(1), 32)
    return np.repeat((warps.astype(np.uint64) << LANES.astype(np.uint64)).sum(1).astype(np.uint32), 32)


# Matrices in registers. A fragment is (warps, rows, columns) of values.

WIDTHS = {"f16": 16, "bf16": 16, "tf32": 32, "s8": 8, "u8": 8, "e4m3": 8, "e5m2": 8, "f64": 64, "f32": 32, "s32": 32}


def values(words: Any, kind: str) -> Any:
    """Values of bits (uint8 to uint64) as float64 or int64."""
    match kind:
        case "f16":
            return words.view(np.float16).astype(np.float64)
        case "bf16":
            return arithmetic.widened(words).astype(np.float64)
        case "tf32":
            return (words & np.uint32(0xFFFFE000)).view(np.float32).astype(np.float64)
        case "f32":
            return words.view(np.float32).astype(np.float64)
        case "f64":
            return words.view(np.float64)
        case "e4m3" | "e5m2":
            return arithmetic.from_eight(words, kind).astype(np.float64)
        case "s8":
            return words.view(np.int8).astype(np.int64)
        case "u8":
            return words.astype(np.int64)
        case "s32":
            return words.view(np.int32).astype(np.int64)
    raise Fault(f"matrices of {kind} are not known")


def _pieces(registers: Sequence[Any], bits: int) -> Any:
    """Elements of each thread in order: (warps, 32, elements) of unsigned integers."""
    words = np.stack([_warps(r) for r in registers], 2)
    return words.view(f"u{bits // 8}")


def multiplied(
    shape: str, kinds: Sequence[str], a: Sequence[Any], b: Sequence[Any], c: Sequence[Any], cut: bool
) -> list[Any]:
    """mma.sync: D = A B + C, exact products, sums rounded once. `kinds`: of D, A, B, C; `cut`: sums stop at int32's limits."""
    m, rest = shape[1:].split("n")
    rows, depth = int(m), int(rest.split("k")[1])
    of_d, of_a, of_b, of_c = kinds
    if rows == 16:
        left = _left(_pieces(a, WIDTHS[of_a]), len(a), depth)
        right = _right(_pieces(b, WIDTHS[of_b]), len(b), depth)
        where_rows, where_columns = _results()
    elif shape == "m8n8k4" and of_a == "f64":
        left = _pieces(a, 64).reshape(-1, 8, 4)
        right = _pieces(b, 64).reshape(-1, 8, 4).transpose(0, 2, 1)
        where_rows, where_columns = LANES[:, None] // 4 + np.zeros((1, 2), int), LANES[:, None] % 4 * 2 + np.arange(2)
    else:
        raise Fault(f"mma.sync {shape} of {of_a} is not known")
    given = values(np.ascontiguousarray(_pieces(c, WIDTHS[of_c])), of_c)
    total = values(np.ascontiguousarray(left), of_a) @ values(np.ascontiguousarray(right), of_b)
    sums = total[:, where_rows, where_columns] + given
    return _written(sums, of_d, cut)


def _written(sums: Any, kind: str, cut: bool) -> list[Any]:
    """Sums (warps, 32, elements) as registers."""
    match kind:
        case "f64":
            words = sums.view(np.uint64)
        case "f32":
            words = sums.astype(np.float32).view(np.uint32)
        case "f16":
            words = np.ascontiguousarray(sums.astype(np.float16)).view(np.uint32)
        case _:
            words = (np.clip(sums, -(2**31), 2**31 - 1) if cut else sums).astype(np.int64).astype(np.uint32)
    return [np.ascontiguousarray(words[:, :, i]).reshape(-1) for i in range(words.shape[2])]


def _results() -> tuple[Any, Any]:
    """Row and column of each of a thread's four sums."""
    i = np.arange(4)
    return LANES[:, None] // 4 + 8 * (i // 2), LANES[:, None] % 4 * 2 + i % 2


def _left(pieces: Any, registers: int, depth: int) -> Any:
    """A of 16 rows: registers hold neighbours in rows g and g + 8, then those of the second half of K."""
    out = np.zeros((len(pieces), 16, depth), pieces.dtype)
    each = pieces.shape[2] // registers
    for e in range(pieces.shape[2]):
        register, inside = divmod(e, each)
        out[:, LANES // 4 + 8 * (register % 2), LANES % 4 * each + inside + register // 2 * 4 * each] = pieces[:, :, e]
    return out


def _right(pieces: Any, registers: int, depth: int) -> Any:
    """B of 8 columns: registers hold neighbours in a column, the second one those of the second half of K."""
    out = np.zeros((len(pieces), depth, 8), pieces.dtype)
    each = pieces.shape[2] // registers
    for e in range(pieces.shape[2]):
        register, inside = divmod(e, each)
        out[:, LANES % 4 * each + inside + register * 4 * each, LANES // 4] = pieces[:, :, e]
    return out


def loaded_matrices(addresses: Any, count: int, turned: bool, read: Callable[[Any], Any]) -> list[Any]:
    """ldmatrix of 8 x 8 elements of 16 bits: threads 8 i to 8 i + 7 name the rows of matrix i. `read` gives the 16 bytes of rows
    as 8 uint16 each, (..., 8), for (warps, rows) of addresses."""
    rows = read(_warps(addresses)[:, : 8 * count]).reshape(-1, count, 8, 8)
    if turned:
        rows = rows.swapaxes(2, 3)
    found = np.ascontiguousarray(rows).view(np.uint32)  # (warps, count, 8, 4)
    return [np.ascontiguousarray(found[:, i]).reshape(-1) for i in range(count)]


def stored_matrices(registers: Sequence[Any], turned: bool) -> Any:
    """stmatrix: the rows, (warps, 8 * registers, 8) of uint16."""
    words = np.stack([_warps(r) for r in registers], 1).reshape(-1, len(registers), 8, 4)
    rows = np.ascontiguousarray(words).view(np.uint16)
    if turned:
        rows = rows.swapaxes(2, 3)
    return rows.reshape(rows.shape[0], -1, 8)
