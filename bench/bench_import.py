"""`import ulpgrad` in a fresh process, beside `import numpy`: not more than 50 ms apart, once both are compiled to bytecode."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from ulpgrad.bench.peers.steps import fresh

ALLOWED = 0.050  # seconds beyond NumPy's
CODE = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def import_time(module: str) -> float:
    """Seconds that a fresh interpreter takes for the import, as it measures them itself."""
    command = [sys.executable, "-c", CODE.format(module)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=fresh())
    return float(done.stdout)


@pytest.mark.parametrize("module", ["numpy", "ulpgrad"])
def test_import(benchmark: Any, module: str) -> None:
    benchmark.group = "import"
    benchmark.pedantic(import_time, (module,), rounds=7, warmup_rounds=1)


def test_import_beside_numpy(benchmark: Any) -> None:
    """The best of several, taken in turns so that both meet the same machine."""
    benchmark.group = "import"
    pairs = benchmark.pedantic(lambda: [(import_time("numpy"), import_time("ulpgrad")) for _ in range(7)], rounds=1)
    beyond = min(own for _, own in pairs) - min(other for other, _ in pairs)
    benchmark.extra_info["beyond_numpy_seconds"] = beyond
    assert beyond <= ALLOWED, f"import ulpgrad takes {beyond * 1e3:.0f} ms longer than import numpy"
