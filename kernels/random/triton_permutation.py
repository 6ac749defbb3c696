"""Fisher and Yates' shuffle without its order of steps: every place finds out by itself which number ends there.

Step i moves what lies at place j_i <= i to place i, and i to place j_i. So place p ends with the last step that chose it, or,
where none did, with what step p found at j_p: the step before p that chose j_p, or else what step j_p had found, and so on. Steps
sorted by the places they chose have both beside each other. Each link of such a chain halves the place, on average: it is short.

Next limit: the sort, CuPy's, which reads and writes all keys eight times.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.kernels import gpu
from ulpgrad.kernels.random import spec
from ulpgrad.kernels.random.triton_philox import block, stream
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.triton_launch import cdiv, launch, tl, triton

BLOCK = 256  # two steps a lane: a remainder of 64 bits takes many registers
LARGEST = 2**31  # numbers: a place and a step make one key of 63 bits


@triton.jit
def _drawn(i, span, attempt, k0, k1, c0, c1, c2, c3):
    """Step i's x from 0 to 2^64 - 1, as x span / 2^64 and x span mod 2^64; a later attempt's lies 2^96 blocks on."""
    w0, w1, w2, w3 = block(i // 2, k0, k1, c0, c1, c2, c3, attempt)
    odd = (i & 1) != 0
    low = tl.where(odd, w2, w0).to(tl.uint64) * span
    high = tl.where(odd, w3, w1).to(tl.uint64) * span + (low >> 32)  # span is below 2^32: nothing overflows
    return high >> 32, (high << 32) | (low & 0xFFFFFFFF)


@triton.jit
def permutation_keys(keys, n, k0, k1, c0, c1, c2, c3, BLOCK: tl.constexpr):
    """The place that each step chooses, as philox.permutation has it, above the step's number."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    span = (i + 1).to(tl.uint64)
    place, rest = _drawn(i, span, tl.cast(0, tl.int64), k0, k1, c0, c1, c2, c3)
    unfair = (tl.zeros_like(span) - span) % span  # 2^64 mod span
    attempt = tl.cast(0, tl.int64)
    while tl.max((rest < unfair).to(tl.int32), 0) != 0:
        attempt += 1
        again, left = _drawn(i, span, attempt, k0, k1, c0, c1, c2, c3)
        place, rest = tl.where(rest < unfair, again, place), tl.where(rest < unfair, left, rest)
    tl.store(keys + i, place.to(tl.int64) << 32 | i, mask=i < n)


@triton.jit
def permutation_neighbours(keys, found, last, n, BLOCK: tl.constexpr):
    """From the sorted keys: the last step that chose each place, and what each step found, as a step's number or, where no step
    before it had chosen its place, as -1 - place."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    key = tl.load(keys + at, mask=inside, other=0)
    before = tl.load(keys + at - 1, mask=inside & (at > 0), other=-1)
    after = tl.load(keys + at + 1, mask=at + 1 < n, other=-1)
    place, step = key >> 32, key & 0xFFFFFFFF
    seen = tl.where(before >> 32 == place, before & 0xFFFFFFFF, tl.where(place == step, step, -1 - place))
    tl.store(found + step, seen, mask=inside)
    tl.store(last + place, step, mask=inside & (after >> 32 != place))


@triton.jit
def permutation_ends(out, found, n, BLOCK: tl.constexpr):
    """What ends at each place; `out` holds the last steps that chose them, or -1."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    end = tl.load(out + at, mask=at < n, other=0)
    end = tl.where(end < 0, -1 - at, end)
    while tl.min(end, 0) < 0:
        end = tl.where(end < 0, tl.load(found - 1 - end, mask=end < 0, other=0), end)
    tl.store(out + at, end, mask=at < n)


def _too_many(request: Request) -> str | None:
    size = request.params["size"]
    return None if size < LARGEST else f"takes fewer than {LARGEST} numbers, not {size}"


@kernel(spec.random_permutation, "cuda/triton-sorted", rank=40, formats=[], where=_too_many)
def random_permutation(*, key: int, counter: int, size: int) -> Any:
    xp = gpu.xp()
    keys, found, out = xp.empty(size, np.int64), xp.empty(size, np.int64), xp.full(size, -1, np.int64)
    grid = (cdiv(size, BLOCK),)
    launch(permutation_keys, grid, keys, size, *stream(key, counter), BLOCK=BLOCK, num_warps=4)
    keys.sort()
    launch(permutation_neighbours, grid, keys, found, out, size, BLOCK=BLOCK, num_warps=4)
    launch(permutation_ends, grid, out, found, size, BLOCK=BLOCK, num_warps=4)
    return out
