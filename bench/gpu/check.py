"""`make gpu-check`: every kernel test on the device, then the table beside cuBLAS, cuDNN and torch, into one JSON file.

A rung that has run on no GPU so far is tested before all others, in a process of its own; where that fails, neither the other
tests nor the table touch it, and the status says so.

What was measured so far is written after each row, so that a run that is cut off has not been for nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ulpgrad.bench import machine
from ulpgrad.bench.gpu import ceilings, events, rows
from ulpgrad.bench.peers import page
from ulpgrad.bench.peers.work import Outcome, Target, Work, WrongResult, check, judge, outcome
from ulpgrad.errors import DeviceError, UlpgradError
from ulpgrad.io.atomic import atomic_write
from ulpgrad.kernels import capabilities, gpu

RECORD = "gpu-check.json"
ALL, FIRST = "tests/gpu", "tests/gpu/test_warpgroup.py"
UNVERIFIED = "warpgroup"  # what tests of that rung have in their names
ALONE = 90  # seconds for FIRST


def facts() -> dict[str, Any]:
    """The device, the versions, the commit."""
    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    found: dict[str, Any] = {
        "gpu": machine.gpu(),
        "versions": machine.versions(),
        "commit": git.stdout.strip() or os.environ.get("COMMIT"),
    }
    t = rows.torch()
    if t is not None:
        found["versions"]["torch"] = t.__version__
        found["versions"]["cudnn"] = t.backends.cudnn.version()
    return found


def measure(work: Work) -> Outcome:
    """One row, by device events, after its results were held against float64."""
    errors = check(work)
    return outcome(work, 1, events.seconds([c.call for c in (work.ours, *work.peers)]), errors)


def launch_cost() -> Outcome:
    """What a small op takes of the host, in thousands of calls a second: at most 5 us are wanted."""
    import ulpgrad as ug
    from ulpgrad.bench.gpu import draw

    x, t = draw.tensor((8,), "float32", 1), rows.torch()
    repeats = 2000 if not gpu.mode() else 20
    ours = 1e-3 / events.host_seconds(lambda: ug.add(x, x), repeats)
    peers = {}
    if t is not None:
        y = draw.to_torch(t, x)
        peers["torch"] = 1e-3 / events.host_seconds(lambda: t.add(y, y), repeats)
    return Outcome("launch of a small op (8 elements)", "calls/ms", 1, ours, peers, 200.0,
                   (judge(Target(1, "limit"), ours, peers, 200.0, {}),))  # fmt: skip


def tests(seconds: int, jobs: int, files: str, *how: str) -> dict[str, Any]:
    """Tests of tests/gpu, in processes of their own."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "pytest", files, "-q", "--maxfail=20", "-p", "no:cacheprovider", *how]
    command += ["-n", str(jobs)] if jobs > 1 else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        status, text = done.returncode, done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        status, text = -1, (error.stdout or b"").decode(errors="replace") + f"\nstopped after {seconds} s"
    print(text[-6000:], flush=True)
    return {"status": status, "seconds": time.perf_counter() - start, "last": text.strip().splitlines()[-1:]}


def write(out: Path, record: dict[str, Any]) -> None:
    with atomic_write(out, text=True) as file:
        json.dump(record, file, indent=1)
        file.write("\n")


def run(out: Path, only: str, limit: float, with_unverified: bool = True) -> int:
    """Measure and write; the exit status is 0 where every row came to a right result."""
    record: dict[str, Any] = {**facts(), "rows": [], "failed": []}
    end, wrong = time.perf_counter() + limit, 0
    works: list[Callable[[], Work | Outcome]] = [launch_cost, *rows.works()]
    if with_unverified:
        works += rows.unverified()
    else:
        record["failed"].append({"work": rows.WARPGROUP, "error": f"{FIRST} failed: its rows are left out"})
    for make in works:
        if time.perf_counter() > end:
            record["failed"].append({"error": f"not measured: {limit:g} s were over"})
            print(record["failed"][-1]["error"], flush=True)
            break
        name, work = "a row", None
        try:
            work = make()
            name = work.name if isinstance(work, Work) else work.work
            if only and not all(word in name for word in only.split()):
                continue
            found = measure(work) if isinstance(work, Work) else work
            record["rows"].append(found.as_data())
            print(*(cell for line in page.rows([found]) for cell in line), sep=" | ", flush=True)
        except Exception as error:  # one row's failure is a row of the record; the rest is measured
            wrong += 1
            record["failed"].append({"work": name, "error": f"{type(error).__name__}: {error}"})
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            if not isinstance(error, (UlpgradError, WrongResult)):
                traceback.print_exc()
        finally:
            work = None  # its operands go before the next row's come
            gc.collect()
            if not gpu.mode():
                gpu.xp().get_default_memory_pool().free_all_blocks()
        write(out, record)
    rates = {form: ceilings.product_rate(form) for form in ("bfloat16", "float8_e4m3fn", "int8")}
    record["ceilings"] = {"copy_bytes_per_second": ceilings.copy_bandwidth(), "product_per_second": rates}
    write(out, record)
    return 1 if wrong else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ulpgrad.bench.gpu.check", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path(RECORD), help="where the record goes")
    parser.add_argument("--only", default="", help="words that a row's name has")
    parser.add_argument(
        "--tests", type=int, default=300, metavar="SECONDS", help="for the tests, which come first; 0: none"
    )
    parser.add_argument("--rows", type=float, default=240, metavar="SECONDS", help="for the rows; 0: none")
    parser.add_argument("--jobs", type=int, default=8, help="processes that run tests")
    given = parser.parse_args()
    reason = capabilities.missing("cuda") or capabilities.missing("triton")
    if reason:
        raise DeviceError(f"gpu-check: {reason}")
    first = status = 0
    if given.tests:
        alone = tests(min(given.tests, ALONE), 1, FIRST)
        first, left = alone["status"], max(1, given.tests - int(alone["seconds"]))
        without = () if first == 0 else ("-k", f"not {UNVERIFIED}")
        status = tests(left, given.jobs, ALL, f"--ignore={FIRST}", *without)["status"]
    return (given.rows and run(given.json, given.only, given.rows, first == 0)) or first or status


if __name__ == "__main__":
    sys.exit(main())
