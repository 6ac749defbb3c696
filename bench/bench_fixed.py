"""Fixed-point arithmetic on Q7.8 beside NumPy's plain int16, which neither rounds nor saturates, and beside APyTypes.

    python -m ulpgrad.bench.bench_fixed     # the table; `pytest bench` keeps the same figures in its records

Samples are taken in turns, so that all meet the same machine; medians are compared. One thread each.
"""

from __future__ import annotations

import importlib
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import fixed
from ulpgrad.bench.timing import seconds
from ulpgrad.formats import Q

COUNT = 1_000_000
SIDE = 256  # of square matrices
SAMPLES = 9
FORM = Q(7, 8)

Call = Callable[[], Any]


def apytypes() -> Any:
    """The library, or None."""
    try:
        return importlib.import_module("apytypes")
    except ImportError:
        return None


def calls(name: str) -> dict[str, Call]:
    """The contenders for a task: (what they do, on the same codes)."""
    shape = (SIDE, SIDE) if name == "matmul" else (COUNT,)
    rng, peer = np.random.default_rng(0), apytypes()
    a, b = (rng.integers(-(2**15), 2**15, shape).astype(np.int16) for _ in range(2))
    x, y = ug.Tensor(a, FORM), ug.Tensor(b, FORM)
    own: dict[str, dict[str, Call]] = {
        "add": {"ulpgrad": lambda: x + y, "NumPy int16": lambda: a + b},
        "multiply": {"ulpgrad": lambda: x * y, "NumPy int16": lambda: a * b},
        "multiply, full": {"ulpgrad": lambda: fixed.multiply(x, y, result="full")},
        "matmul": {"ulpgrad": lambda: x @ y, "NumPy int64": lambda: a.astype(np.int64) @ b},
    }
    if peer is None:
        return own[name]
    p, q = (peer.APyFixedArray(v.tolist(), 8, 8) for v in (a, b))
    how = (8, 8, peer.QuantizationMode.TIES_EVEN, peer.OverflowMode.SAT)
    theirs: dict[str, Call] = {
        "add": lambda: (p + q).cast(*how),
        "multiply": lambda: (p * q).cast(*how),
        "multiply, full": lambda: p * q,
        "matmul": lambda: (p @ q).cast(*how),
    }
    return {**own[name], "APyTypes": theirs[name]}


TASKS = ("add", "multiply", "multiply, full", "matmul")


def times(name: str) -> dict[str, float]:
    """Milliseconds of all contenders: medians of samples in turns."""
    contenders = calls(name)
    found: dict[str, list[float]] = {who: [] for who in contenders}
    for _ in range(SAMPLES):
        for who, call in contenders.items():
            call()  # so that each finds the operands in the cache, whoever came before
            found[who].append(seconds(call))
    return {who: 1e3 * statistics.median(samples) for who, samples in found.items()}


@pytest.mark.parametrize("name", TASKS)
def test_fixed(benchmark: Any, name: str) -> None:
    """Rounding and saturation cost at most five plain int16 passes, and beat APyTypes."""
    ug.set_num_threads(1)
    found = benchmark.pedantic(lambda: times(name), rounds=1)
    benchmark.extra_info["milliseconds"] = found
    assert found["ulpgrad"] < found.get("APyTypes", np.inf)
    assert found["ulpgrad"] < 5 * found.get("NumPy int16", np.inf)


def main() -> None:
    """Print the table."""
    ug.set_num_threads(1)
    print(f"{'ms, and ratios':<20}{'ulpgrad':>9}  peers")
    for name in TASKS:
        found = times(name)
        own = found.pop("ulpgrad")
        print(f"{name:<20}{own:>9.2f}  " + ", ".join(f"{who} {ms:.2f} ({ms / own:.2f}x)" for who, ms in found.items()))


if __name__ == "__main__":
    main()
