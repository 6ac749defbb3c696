"""`make gpu-check`: every kernel test on the device, then the table beside cuBLAS, cuDNN and torch, the layers of whole networks,
and small tests under compute-sanitizer, into one JSON file.

Rungs that have run on no GPU so far are tested before all others, each in a process of its own and for a limited time; where
that fails, neither the other tests nor the table touch the rung, and the status says so. Rows of one whose barriers wait without
end come last, in such a process too.

Each part has a time of its own; together they stay within ten minutes. The layers of all networks take longer: `--networks all`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ulpgrad.bench import machine
from ulpgrad.bench.gpu import ceilings, events, layers, rows, sanitizer
from ulpgrad.bench.gpu.networks import NETWORKS
from ulpgrad.bench.gpu.record import Record
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
ALONE, APART = 90, 45  # seconds for each of these, and for rows in a process of their own
NETWORK = "ResNet-50"


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
        printed: bytes | str = error.stdout or b""  # bytes, in spite of text=True, where it has come in part
        text = printed if isinstance(printed, str) else printed.decode(errors="replace")
        status, text = -1, f"{text}\nstopped after {seconds} s"
    print(text[-6000:], flush=True)
    return {"status": status, "seconds": time.perf_counter() - start, "last": text.strip().splitlines()[-1:]}


def run(record: Record, works: Iterable[Callable[[], Work | Outcome]], only: str, limit: float) -> None:
    """Measure rows into the record. What goes wrong between them is a row that failed, and the last one."""
    end, left = time.perf_counter() + limit, iter(works)
    while True:
        try:
            make = next(left)
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
    """Rows of a rung that has run on no GPU, but of those whose tests `failed`. They come last: what goes wrong there takes no
    other row along."""
    passes = [name for name in layers.PASSES if (WEIGHTS if name == "weight gradient" else WARPGROUP) not in failed]
    if WARPGROUP not in failed:
        yield from rows.unverified()
    yield from layers.unverified(networks, passes)


def apart(record: Record, rung: str, only: str, seconds: float) -> None:
    """Rows of a rung that may wait without end, measured in a process of their own, which ends with its time."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "ulpgrad.bench.gpu.check", "--rung", rung, "--json", str(out), "--only", only]
        why = ""
        try:
            status = subprocess.run([*command, "--rows", str(seconds)], timeout=seconds).returncode
        except subprocess.TimeoutExpired:
            status, why = -1, f"stopped after {seconds:g} s"
        found = json.loads(out.read_text()) if out.exists() else {"rows": [], "failed": []}
    record.data["rows"] += found["rows"]
    record.data["failed"] += found["failed"]
    record.wrong += len(found["failed"])
    if why or (status and not found["failed"]):
        record.wrong += 1
        record.left_out(why or f"its process ended with {status}", rung)
    record.write()


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
        "--rung", choices=[*rows.WAITING], help="a rung that may wait without end: its rows, and nothing else"
    )
    given = parser.parse_args()
    reason = capabilities.missing("cuda") or capabilities.missing("triton")
    if reason:
        raise DeviceError(f"gpu-check: {reason}")
    networks = chosen(given.networks or ("none" if given.only else NETWORK))
    record, failed, statuses = Record(given.json, facts()), list[str](), []
    if given.rung:
        record.write()
        run(record, rows.WAITING[given.rung](), given.only, given.rows)
        return min(1, record.wrong)
    if given.tests:
        left, alone = given.tests, []
        for name, file in FIRST.items():
            alone.append(tests(min(left, ALONE), 1, file))
            left = max(1, left - int(alone[-1]["seconds"]))
            failed += [name] if alone[-1]["status"] else []
        without = ("-k", " and ".join(f"not ({name})" for name in failed)) if failed else ()
        others = tests(left, given.jobs, ALL, *(f"--ignore={file}" for file in FIRST.values()), *without)
        record.data["tests"] = [*alone, others]
        statuses += [found["status"] for found in record.data["tests"]]
    record.write()
    if given.rows:
        run(record, verified(), given.only, given.rows)
    if networks:
        layers.run(record, networks, given.layers)
    if given.rows or networks:
        limits(record)
    if given.unverified:
        for name in (name for name in (WARPGROUP, WEIGHTS) if name in failed):
            record.left_out(f"{FIRST[name]} failed: its rows are left out", rows.WARPGROUP)
        run(record, unverified(networks, failed), given.only, given.unverified)
    if given.sanitizer:
        passed = [FIRST[name] for name in (WARPGROUP, WEIGHTS) if name not in failed]
        found = record.data["sanitizer"] = sanitizer.run(given.sanitizer, passed)
        statuses += [1 for one in found if one["is_clean"] is False]
        record.write()
    for name in rows.WAITING if given.unverified else ():
        if name in failed:
            record.left_out(f"{FIRST[name]} failed: its rows are left out", name)
        else:
            apart(record, name, given.only, APART)
    return 1 if record.wrong else next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
