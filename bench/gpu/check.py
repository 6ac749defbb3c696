"""`make gpu-check`: every kernel test on the device, then the table beside cuBLAS, cuDNN and torch, the layers of whole networks,
and small tests under compute-sanitizer, into one JSON file.

Rungs that have run on no GPU so far are tested before all others, each in a process of its own and for a limited time; where
that fails, neither the other tests nor the table touch the rung, and the status says so.

Each part has a process and a time of its own, with which it ends: a kernel that waits without end, or takes the device from its
process, takes no other part along, and a row that loses the device no other row. Together the parts stay within ten minutes. The
layers of all networks take longer: `--networks all`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ulpgrad.bench import machine
from ulpgrad.bench.gpu import ceilings, draw, events, layers, lost, rows, sanitizer, suites
from ulpgrad.bench.gpu.networks import NETWORKS
from ulpgrad.bench.gpu.record import LostDevice, Record
from ulpgrad.bench.peers.work import Outcome, Target, Work, judge
from ulpgrad.errors import DataError, DeviceError
from ulpgrad.kernels import capabilities, gpu

RECORD = "gpu-check.json"
ALL = "tests/gpu"
# Tests of rungs that have run on no GPU, by what tests of all rungs have in their names where they meet them.
WARPGROUP, WEIGHTS = "warpgroup", "warpgroup and weight_gradient"
FIRST = {
    WARPGROUP: "tests/gpu/test_warpgroup.py",
    WEIGHTS: "tests/gpu/test_warpgroup_weight.py",
    "gluon": "tests/gpu/test_gluon.py",
}
# What needs no device: compilers, the host, the stub of a driver. Processors would be busy with it for minutes.
ELSEWHERE = ("tests/gpu/test_cuda_compile.py", "tests/gpu/test_conv_cuda_compile.py", "tests/gpu/test_stub_driver.py")
ALONE, APART = 90, 45  # seconds for each of the first, and for rows of a rung that may wait without end
FEW, HANGS = 4, 40  # processes for each of the first; seconds after which a test of theirs is taken to wait without end
STARTING = 60  # seconds that a process may take beyond its part's: to import and compile, and for its last row
TABLE, UNVERIFIED, LAYERS = "table", "unverified", "layers"
NETWORK = "ResNet-50"


def facts() -> dict[str, Any]:
    """The device, the versions, the commit."""
    found: dict[str, Any] = {
        "gpu": machine.gpu(),
        "versions": machine.versions(),
        "commit": machine.commit() or os.environ.get("COMMIT"),  # a copy without a history is told it
    }
    t = draw.torch()
    if t is not None:
        found["versions"]["torch"] = str(t.__version__)
        found["versions"]["cudnn"] = t.backends.cudnn.version()
    return found


def launch_cost() -> Outcome:
    """What a small op takes of the host, in thousands of calls a second: at most 5 us are wanted."""
    import ulpgrad as ug

    x, t = draw.tensor((8,), "float32", 1), draw.torch()
    repeats = 2000 if not gpu.mode() else 20
    ours = 1e-3 / events.host_seconds(lambda: ug.add(x, x), repeats)
    peers = {}
    if t is not None:
        y = draw.to_torch(t, x)
        peers["torch"] = 1e-3 / events.host_seconds(lambda: t.add(y, y), repeats)
    return Outcome("launch of a small op (8 elements)", "calls/ms", 1, ours, peers, 200.0,
                   (judge(Target(1, "limit"), ours, peers, 200.0, {}),))  # fmt: skip


def run(record: Record, works: Iterable[Callable[[], Work | Outcome]], only: str, limit: float, first: int = 0) -> None:
    """Measure rows into the record, from the `first` on, which counts from 0. What goes wrong between them is a row that failed,
    and the last one."""
    end, left = time.perf_counter() + limit, islice(works, first, None)
    record.data["begun"] = first
    while True:
        try:
            make = next(left)
            record.data["begun"] += 1
            record.write()
        except StopIteration:
            break
        except Exception as error:  # other parts of the check are to come
            record.wrong += 1
            record.left_out(f"{type(error).__name__}: {error}", "the rows after this one")
            break
        if time.perf_counter() > end:
            record.left_out(f"not measured: {limit:g} s were over")
            break
        found = record.attempt(make, lambda name: all(word in name for word in only.split()))
        if found is not None:
            record.data["rows"].append(found.as_data())
            record.write()


def verified() -> Iterator[Callable[[], Work | Outcome]]:
    yield launch_cost
    yield from rows.works()


def unverified(networks: Sequence[str], failed: Sequence[str] = ()) -> Iterator[Callable[[], Work]]:
    """Rows of a rung that has run on no GPU, but of those whose tests `failed`."""
    passes = [name for name in layers.PASSES if (WEIGHTS if name == "weight gradient" else WARPGROUP) not in failed]
    if WARPGROUP not in failed:
        yield from rows.unverified()
    yield from layers.unverified(networks, passes)


def apart(record: Record, part: str, seconds: float, *how: str) -> None:
    """A part of the check, measured in a process of its own, which ends soon after its time. Where a row loses the device or ends
    the process, another one goes on with the rows behind it. Until it has ended, what it has found lies beside the record."""
    end, first, out = time.perf_counter() + seconds, 0, record.out.with_suffix(f".{part}.json")
    command = [sys.executable, "-m", "ulpgrad.bench.gpu.check", "--part", part, "--json", str(out), *how]
    while True:
        left, why = end - time.perf_counter(), ""
        out.unlink(missing_ok=True)
        try:
            given = ("--rows", f"{left:.3g}", "--first", str(first))
            status = subprocess.run([*command, *given], timeout=left + STARTING).returncode
        except subprocess.TimeoutExpired:
            status, why = -1, f"stopped after {left + STARTING:.2f} s"
        found = json.loads(out.read_text()) if out.exists() else {}
        record.take(found)
        out.unlink(missing_ok=True)
        if why or status not in (0, 1, lost.ENDED):
            record.wrong += 1
            record.left_out(why or f"its process ended with {status}", part)
        before, first = first, found.get("begun", 0)
        has_died = status == lost.ENDED or (status < 0 and not why)
        if not has_died or first <= before or time.perf_counter() > end:
            return


def limits(record: Record) -> None:
    """What the device does at most, as the rows had it; None for what could not be measured, which the record says."""

    def found(what: str, measure: Callable[[], float | None]) -> float | None:
        try:
            return measure()
        except Exception as error:  # a library's: what comes after it is measured all the same
            record.wrong += 1
            record.left_out(f"{type(error).__name__}: {error}", f"limit of {what}")
            return None

    forms = ("bfloat16", "float8_e4m3fn", "int8", "tf32")
    rates = {form: found(f"products of {form}", partial(ceilings.product_rate, form)) for form in forms}
    copied = found("copies", ceilings.copy_bandwidth)
    record.data["ceilings"] = {"copy_bytes_per_second": copied, "product_per_second": rates}
    record.write()


def chosen(names: str) -> list[str]:
    """Networks by their names, with commas between them; "all" and "none" as well."""
    if names in ("all", "none"):
        return list(NETWORKS) if names == "all" else []
    found = names.split(",")
    for name in found:
        if name not in NETWORKS:
            raise DataError(f"gpu-check: no network {name!r}: expected {', '.join(NETWORKS)}, all or none")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m ulpgrad.bench.gpu.check", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path(RECORD), help="where the record goes")
    parser.add_argument("--only", default="", help="words that a row's name has")
    parser.add_argument(
        "--tests", type=int, default=200, metavar="SECONDS", help="for the tests, which come first; 0: none"
    )
    parser.add_argument("--rows", type=float, default=130, metavar="SECONDS", help="for the rows; 0: none")
    parser.add_argument(
        "--networks", help=f"whose layers are measured: {', '.join(NETWORKS)}, all, none; without --only, {NETWORK}"
    )
    parser.add_argument("--layers", type=float, default=70, metavar="SECONDS", help="for the layers of all networks")
    parser.add_argument(
        "--unverified",
        type=float,
        default=35,
        metavar="SECONDS",
        help="for rows of rungs that have run on no GPU; 0: none",
    )
    parser.add_argument("--sanitizer", type=float, default=60, metavar="SECONDS", help="for compute-sanitizer; 0: none")
    parser.add_argument("--jobs", type=int, default=8, help="processes that run tests")
    parser.add_argument(
        "--part", choices=[TABLE, UNVERIFIED, LAYERS, *rows.WAITING], help="in this process, and no other"
    )
    parser.add_argument("--first", type=int, default=0, metavar="ROW", help="of a part, from 0")
    parser.add_argument("--failed", action="append", default=[], choices=[*FIRST], help="tests, in an earlier run")
    given = parser.parse_args()
    reason = capabilities.missing("cuda") or capabilities.missing("triton")
    if reason:
        raise DeviceError(f"gpu-check: {reason}")
    networks = chosen(given.networks or ("none" if given.only else NETWORK))
    if given.part:
        return measured(Record(given.json, {}), given, networks)
    record, failed, statuses = Record(given.json, facts()), list[str](given.failed), []
    how = ("--only", given.only, "--networks", ",".join(networks) or "none")
    record.write()
    if given.tests:
        left, alone, log = given.tests, [], given.json.with_suffix(".tests.log")
        log.unlink(missing_ok=True)
        few = min(FEW, given.jobs) if suites.can_end_tests() else 1
        for name, file in FIRST.items():
            alone.append(suites.run(min(left, ALONE), few, file, log=log, stuck=HANGS))
            left = max(1, left - int(alone[-1]["seconds"]))
            failed += [name] if alone[-1]["status"] else []
            record.data["tests"] = alone
            record.write()
        without = ("-k", " and ".join(f"not ({name})" for name in failed)) if failed else ()
        ignored = (f"--ignore={file}" for file in (*FIRST.values(), *ELSEWHERE))
        alone.append(suites.run(left, given.jobs, ALL, *ignored, *without, log=log))
        statuses += [found["status"] for found in alone]
        record.write()
    if given.rows:
        apart(record, TABLE, given.rows, *how)
    if networks:
        apart(record, LAYERS, given.layers, *how)
    if given.unverified:
        for name in (name for name in (WARPGROUP, WEIGHTS) if name in failed):
            record.left_out(f"{FIRST[name]} failed: its rows are left out", rows.WARPGROUP)
        apart(record, UNVERIFIED, given.unverified, *how, *(f"--failed={name}" for name in failed))
    if given.sanitizer:
        passed = [FIRST[name] for name in (WARPGROUP, WEIGHTS) if name not in failed]
        found = record.data["sanitizer"] = sanitizer.run(given.sanitizer, passed)
        statuses += [1 for one in found if one["is_clean"] is False]
        record.write()
    for name in rows.WAITING if given.unverified else ():
        if name in failed:
            record.left_out(f"{FIRST[name]} failed: its rows are left out", name)
        else:
            apart(record, name, APART, *how)
    return 1 if record.wrong else next((status for status in statuses if status), 0)


def measured(record: Record, given: argparse.Namespace, networks: Sequence[str]) -> int:
    """A part of the check, in this process."""
    record.write()
    try:
        if given.part == LAYERS:
            layers.run(record, networks, given.rows)
        else:
            works: Iterable[Callable[[], Work | Outcome]]
            if given.part == TABLE:
                works = verified()
            else:
                works = unverified(networks, given.failed) if given.part == UNVERIFIED else rows.WAITING[given.part]()
            run(record, works, given.only, given.rows, given.first)
        if given.part in (TABLE, LAYERS):
            limits(record)
    except LostDevice:
        return lost.ENDED
    return min(1, record.wrong)


if __name__ == "__main__":
    sys.exit(main())
