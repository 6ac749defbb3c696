"""The machine's ceilings, measured in the same run as what is compared with them: the roofline follows from these alone.

Arithmetic is measured from registers, by unit: float32 and float64 multiply-adds, dot products of bfloat16 and of integers.
Memory is measured by sweeps over as much of it as the work moves, so that what fits a cache is held against that cache.
Each on one thread and on all.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import numpy as np

from ulpgrad.bench import machine
from ulpgrad.bench.timing import seconds
from ulpgrad.formats import Array, Format, bfloat16, compute_format, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.numba_jit import jit
from ulpgrad.kernels.threads import get_num_threads

UNITS = ("float32", "float64", "bfloat16", "int16", "int8")
Sweep = Literal["read", "write", "copy", "triad"]
SWEEPS: tuple[Sweep, ...] = ("read", "write", "copy", "triad")

TRIES = 12
SPREAD = 0.2  # seconds: a system may leave new threads on one core for some tens of milliseconds
ROUNDS = 40_000  # about 2 ms on one core: short enough to fall between other programs
SWEPT = 1 << 27  # bytes of a try, in several passes where a pass is less: about 1 ms in the first cache, 4 in memory
PAST = 1 << 20  # bytes of a sweep from which it may pay to write past the caches


class Memory(NamedTuple):
    """A level of memory, bytes that one thread (the last cache and main memory: all threads) sweep over, and GB/s by sweep."""

    level: str
    size: int
    one: dict[Sweep, float]
    all: dict[Sweep, float]


@dataclass(frozen=True)
class Arithmetic:
    """A unit, the instruction it was measured with, and G operations a second; a multiply-add counts as two."""

    unit: str
    instruction: str
    one: float
    all: float


def flops(form: Format, threads: int | None = None, *, dots: bool = False) -> float | None:
    """Multiply-adds a second times two, in the format that kernels compute in (float32 or float64); None for integers.

    `dots`: for work that is made of dot products, which bfloat16 has a unit for where the processor has one.
    """
    if form.kind != "float":
        return None
    if dots and form is bfloat16 and (found := rate("bfloat16", threads)) is not None:
        return found
    return rate("float64" if compute_format(form) is float64 else "float32", threads)


def dots(bits: int, threads: int | None = None) -> float | None:
    """Multiply-adds of integers of 8 or 16 bits into 32 a second, times two; None without the extension."""
    if bits not in (8, 16):
        raise ValueError(f"dots: expected bits = 8 or 16, got {bits}")
    return rate(f"int{bits}", threads)


@cache
def rate(unit: str, threads: int | None = None) -> float | None:
    """Operations a second of a unit, None if there is none; `threads`: None is one or all, whichever is faster."""
    if native.missing():
        if unit not in ("float32", "float64"):
            return None
        x = np.linspace(0, 1, 256, dtype=unit)
        return _best(lambda: _loop(x, x.dtype.type(0.5), ROUNDS // 20), 2.0 * x.size * (ROUNDS // 20))
    run = native.module().peak_arithmetic
    work = run(unit, 0, 1) or run(unit, 1, 1)
    if not work:
        return None
    counts = {1, get_num_threads()} if threads is None else {threads}
    return max(_best(partial(run, unit, ROUNDS, n), float(ROUNDS) * n * work, threads=n) for n in counts)


@cache
def bandwidth(size: int, threads: int | None = None, sweep: Sweep = "copy") -> float:
    """Bytes read and written a second by sweeps over `size` bytes, at most largest(): into the caches or past them,
    whichever is faster; `threads`: None is one or all, whichever is faster."""
    counts = {1, get_num_threads()} if threads is None else {threads}
    size = max(4096 * max(counts), min(size, largest()))
    if native.missing():
        x = np.ones(size // 8, np.float32)
        out = np.empty_like(x)
        return _best(partial(np.copyto, out, x), 2.0 * x.nbytes, max(1, SWEPT // size))
    buffer = _aligned(size)
    run = native.module().peak_memory
    found = []
    for n in counts:
        for past in (False, True) if sweep != "read" and size >= PAST else (False,):
            passes = max(1, SWEPT // size)
            moved = run(sweep, buffer, 1, n, past)
            found.append(_best(partial(run, sweep, buffer, passes, n, past), float(passes * moved), threads=n))
    return max(found)


def forget() -> None:
    """Let the next question be measured anew."""
    rate.cache_clear()
    bandwidth.cache_clear()


def arithmetic() -> list[Arithmetic]:
    """Every unit of this machine, on one thread and on all."""
    found = []
    for unit in UNITS:
        one, both = rate(unit, 1), rate(unit, get_num_threads())
        if one is not None and both is not None:
            found.append(Arithmetic(unit, _instruction(unit), one / 1e9, both / 1e9))
    return found


def memory() -> list[Memory]:
    """Every level of memory, on one thread and on all: half of each cache, and more than the last one holds."""
    threads, caches = get_num_threads(), machine.cache_bytes()
    found = []
    for level, (capacity, is_shared) in caches.items():
        found.append(_level(level, capacity // 2, capacity // 2 * (1 if is_shared else threads)))
    found.append(_level("memory", largest(), largest()))
    return found


@cache
def largest() -> int:
    """Bytes of a sweep over main memory: several times what the caches hold."""
    found = max([SWEPT, *(4 * capacity for capacity, _ in machine.cache_bytes().values())])
    return min(found, (machine.memory() or 1 << 31) // 8)


def source() -> str:
    """How the arithmetic limit was measured."""
    reason = native.missing()
    if reason:
        return f"a Numba loop over 256 values, which is below the machine's limit ({reason})"
    return f"C++ multiply-adds from registers, {native.module().cpu_isas()[-1]}"


def _level(name: str, alone: int, together: int) -> Memory:
    threads = get_num_threads()
    sweeps = SWEEPS[2:3] if native.missing() else SWEEPS
    one, both = ({s: bandwidth(size, n, s) / 1e9 for s in sweeps} for size, n in ((alone, 1), (together, threads)))
    return Memory(name, together, one, both)


def _instruction(unit: str) -> str:
    return "a loop by Numba" if native.missing() else str(native.module().peak_instruction(unit))


def _aligned(size: int) -> Array:
    """Memory of our own, from a line of the caches on."""
    raw = np.ones(size // 4 + 16, np.float32)
    start = -raw.ctypes.data % 64 // 4
    return raw[start : start + size // 4]


def _best(call: Callable[[], Any], work: float, repeats: int = 1, threads: int = 0) -> float:
    """Work a second in the fastest try, after which TRIES brought nothing; on one thread by the processor's time, which other
    programs leave alone, on several for SPREAD at least."""
    call()
    clock = time.thread_time if threads == 1 else time.perf_counter
    fastest, idle, began = math.inf, 0, time.perf_counter()
    while idle < TRIES or (threads != 1 and time.perf_counter() - began < SPREAD):
        took = seconds(call, repeats, clock)
        idle = idle + 1 if took > 0.99 * fastest else 0
        fastest = min(fastest, took)
    return work * repeats / fastest


@jit(fastmath={"contract"})
def _loop(x: Array, a: Any, rounds: int) -> None:
    for _ in range(rounds):
        for i in range(x.size):
            x[i] = x[i] * a + a


__all__ = ["Arithmetic", "Memory", "arithmetic", "bandwidth", "dots", "flops", "forget", "memory", "rate", "source"]
