"""Integer products in operations a second, as a share of what the units can do, and beside other libraries if installed.

`python -m ulpgrad.bench.bench_integer [--threads 1]` prints the table; pytest runs its rows as benchmarks. With one thread
the processor's time is counted instead of the clock's, so that other programs do not blur it.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.bench import peak
from ulpgrad.formats import Array, as_format
from ulpgrad.kernels.integer import spec
from ulpgrad.kernels.integer.accumulator import Accumulator

SIZE, CHOSEN_SIZE, SLOW_SIZE = 1024, 512, 256
RNG = np.random.default_rng(0)
TRIES = 15


def codes(dtype: Any, size: int = SIZE) -> Array:
    """Codes over the whole range of their type."""
    info = np.iinfo(dtype)
    return RNG.integers(info.min, info.max + 1, (size, size)).astype(dtype)


@dataclass(frozen=True)
class Row:
    """A product: its operands and accumulator; the unit it runs on, of 8 or 16 `bits`, and the `passes` through it."""

    name: str
    a: Array
    b: Array
    accumulator: Any
    bits: int
    passes: int

    def call(self) -> Any:
        formats = (as_format(self.a.dtype), as_format(self.b.dtype))
        return dispatch.call(spec.integer_matmul, formats, (self.a, self.b), {"accumulator": self.accumulator})[0]

    @property
    def operations(self) -> float:
        """Multiplications and additions."""
        return float(2 * self.a.size * self.b.shape[1])


def rows() -> Iterator[Row]:
    a8, b8, u8, a16, b16 = (codes(t) for t in (np.int8, np.int8, np.uint8, np.int16, np.int16))
    yield Row("int8 x int8 -> int32", a8, b8, None, 8, 1)
    yield Row("int8 x int8 transposed -> int32", a8, b8.T, None, 8, 1)
    yield Row("int8 x uint8 -> int32", a8, u8, None, 8, 1)
    yield Row("int16 x int16 -> int32, wrapping", a16, b16, None, 16, 1)
    yield Row("int16 x int16 -> int64, exact", a16, b16, "int64", 16, 2)
    left, right = (codes(np.int16, CHOSEN_SIZE) for _ in range(2))
    for chunk in (1, 16, 64):
        how = Accumulator(24, 8, "saturate", "nearest_even", chunk)
        yield Row(
            f"int16, 24 bits saturating, nearest even, chunk {chunk}", left, right, how, 16, 1 if chunk == 1 else 2
        )
    how = Accumulator(24, 8, "wrap", "down")
    yield Row("int16, 24 bits wrapping, truncated, chunk 1", left, right, how, 16, 1)


def seconds(call: Callable[[], Any], tries: int = TRIES) -> float:
    """The least time of a call."""
    clock = time.thread_time if ug.get_num_threads() == 1 else time.perf_counter
    times = []
    for _ in range(tries):
        start = clock()
        call()
        times.append(clock() - start)
    return min(times)


def torch_rate(row: Row) -> float | None:
    """Operations a second of torch._int_mm, which takes int8."""
    if row.a.dtype != np.int8 or row.b.dtype != np.int8:
        return None
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    torch.set_num_threads(ug.get_num_threads())
    a, b = torch.from_numpy(row.a), torch.from_numpy(row.b)
    torch._int_mm(a, b)
    return row.operations / seconds(lambda: torch._int_mm(a, b))


def numpy_rate() -> float:
    """Operations a second of NumPy's product of int32 matrices (on one thread, and smaller: it is slow)."""
    a, b = (codes(np.int8, SLOW_SIZE).astype(np.int32) for _ in range(2))
    return 2.0 * SLOW_SIZE**3 / seconds(lambda: a @ b, 3)


def apytypes_seconds(row: Row) -> float | None:
    """apytypes' time for the same product, Q7.8 in its accumulator; of the processor, shared by as many threads as here."""
    how = row.accumulator
    if not isinstance(how, Accumulator) or how.chunk != 1:
        return None
    try:
        apytypes = importlib.import_module("apytypes")
    except ImportError:
        return None
    a, b = (apytypes.APyFixedArray(x.astype(np.int64), int_bits=8, frac_bits=8) for x in (row.a, row.b))
    rounding = {"nearest_even": apytypes.QuantizationMode.TIES_EVEN, "down": apytypes.QuantizationMode.TO_NEG}[
        how.rounding
    ]
    overflow = {"saturate": apytypes.OverflowMode.SAT, "wrap": apytypes.OverflowMode.WRAP}[how.overflow]
    with apytypes.APyFixedAccumulatorContext(
        int_bits=how.bits - 8, frac_bits=8, quantization=rounding, overflow=overflow
    ):
        start = time.process_time()
        a @ b
        return (time.process_time() - start) / float(ug.get_num_threads())


def table() -> None:
    """Print every row."""
    slow, known = numpy_rate(), None
    print(f"{ug.get_num_threads()} threads; NumPy int32: {slow / 1e9:.2f} GOP/s")
    print(f"{'product':<56} {'ms':>8} {'GOP/s':>7} {'of limit':>9} {'torch':>7} {'NumPy':>8} {'apytypes':>9}")
    for row in rows():
        row.call()
        took = seconds(row.call)
        rate, limit = row.operations / took, peak.dots(row.bits, ug.get_num_threads())
        beside = torch_rate(row)
        own = apytypes_seconds(row) or (known if isinstance(row.accumulator, Accumulator) else None)
        known = own or known
        print(
            f"{row.name:<56} {took * 1e3:8.2f} {rate / 1e9:7.0f} {_share(rate * row.passes, limit):>9} "
            f"{_times(rate, beside):>7} {_times(rate, slow):>8} {_times(own, took):>9}",
            flush=True,
        )


def _share(rate: float, limit: float | None) -> str:
    return f"{rate / limit:.0%}" if limit else ""


def _times(x: float | None, y: float | None) -> str:
    return f"{x / y:.2f}x" if x and y else ""


@pytest.mark.parametrize("row", list(rows()), ids=lambda row: row.name)
def test_product(benchmark: Any, row: Row) -> None:
    benchmark.group = "integer_matmul"
    benchmark.pedantic(row.call, rounds=10, iterations=1, warmup_rounds=1)
    benchmark.extra_info["operations"] = row.operations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=ug.get_num_threads())
    ug.set_num_threads(parser.parse_args().threads)
    table()
