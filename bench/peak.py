"""The roofline's limits on this machine, measured in the same run as what is compared with them.

Multiply-adds from registers give the limit of arithmetic, copies of as much memory as the op moves that of memory; both
on one thread and on all, whichever is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ulpgrad.bench.timing import seconds
from ulpgrad.formats import Array, Format, compute_format, float64
from ulpgrad.kernels import native
from ulpgrad.kernels.numba_jit import jit
from ulpgrad.kernels.threads import get_num_threads

TRIES = 5
ROUNDS = 400_000  # about 20 ms on one core
LARGEST = 1 << 26  # bytes of each side of a copy


@cache
def flops(form: Format, threads: int | None = None) -> float | None:
    """Multiply-adds a second times two, in the format that kernels compute in (float32 or float64); None for integers."""
    if form.kind != "float":
        return None
    is_double = compute_format(form) is float64
    if native.missing():
        x = np.linspace(0, 1, 256, dtype=np.float64 if is_double else np.float32)
        return _best(lambda: _loop(x, x.dtype.type(0.5), ROUNDS // 20), 2.0 * x.size * (ROUNDS // 20))
    run = native.module().peak_fma
    counts = {1, get_num_threads()} if threads is None else {threads}
    return max(_best(partial(run, ROUNDS, n, is_double), ROUNDS * run(1, n, is_double), threads=n) for n in counts)


@cache
def dots(bits: int, threads: int | None = None) -> float | None:
    """Multiply-adds of integers of 8 or 16 bits into 32 a second, times two; None without the extension."""
    if native.missing():
        return None
    run = native.module().peak_dot
    counts = {1, get_num_threads()} if threads is None else {threads}
    return max(_best(partial(run, ROUNDS, n, bits), ROUNDS * run(1, n, bits), threads=n) for n in counts)


@cache
def bandwidth(size: int, threads: int | None = None) -> float:
    """Bytes read and written a second when `size` bytes are moved, by copying half as many."""
    count = max(1024, min(size // 2, LARGEST) // 4)
    x = np.ones(count, np.float32)
    out = np.empty_like(x)
    repeats = max(1, (1 << 22) // x.nbytes)
    copies: list[Callable[[], Any]] = [partial(np.copyto, out, x)]
    if not native.missing():
        counts = {1, get_num_threads()} if threads is None else {threads}
        copies += [partial(native.module().peak_copy, out, x, n) for n in counts]
    return max(_best(copy, 2.0 * x.nbytes, repeats) for copy in copies)


def source() -> str:
    """How the arithmetic limit was measured."""
    reason = native.missing()
    if reason:
        return f"a Numba loop over 256 values, which is below the machine's limit ({reason})"
    return f"C++ multiply-adds from registers, {native.module().cpu_isas()[-1]}"


def _best(call: Callable[[], Any], work: float, repeats: int = 1, threads: int = 0) -> float:
    """Work a second in the fastest of some tries; on one thread by the processor's time, which other programs leave alone."""
    call()
    clock = time.thread_time if threads == 1 else time.perf_counter
    return work * repeats / min(seconds(call, repeats, clock) for _ in range(TRIES))


@jit(fastmath={"contract"})
def _loop(x: Array, a: Any, rounds: int) -> None:
    for _ in range(rounds):
        for i in range(x.size):
            x[i] = x[i] * a + a


__all__ = ["bandwidth", "dots", "flops", "source"]
