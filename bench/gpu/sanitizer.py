"""NVIDIA's compute-sanitizer over the small tests of our CUDA C++ kernels: accesses outside of arrays (memcheck), and hazards
between threads in shared memory (racecheck).

It is part of CUDA's toolkit. Its output ends in a line that counts (Compute Sanitizer User Manual, "Memcheck Tool" and "Racecheck
Tool"), and a run is clean only where that line says none and tests have passed under it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROGRAM = "compute-sanitizer"
TOOLS = ("memcheck", "racecheck")
SUMMARIES = {
    "memcheck": re.compile(r"^=+ ERROR SUMMARY: (?P<errors>\d+) errors?", re.MULTILINE),
    "racecheck": re.compile(
        r"^=+ RACECHECK SUMMARY: \d+ hazards? displayed \((?P<errors>\d+) errors?, (?P<warnings>\d+) warnings?\)",
        re.MULTILINE,
    ),
}
PASSED = re.compile(r"\b(\d+) passed\b")
# One of each kernel of convolution and pooling, in small.
TESTS = ("tests/gpu/test_conv_cuda.py", "tests/gpu/test_pool_cuda.py", "tests/gpu/test_integer_conv_cuda.py",
         "tests/gpu/test_conv_codes.py")  # fmt: skip
SMALL = "bits or lie or every_pair or places or finite or every_cut"
TESTING = 0.6  # of a tool's time, after which no test begins: the tool is to come to its end
PLUGIN = "ulpgrad.bench.gpu.unpooled"


def places() -> Iterator[Path]:
    """Where the program may be."""
    on_path = shutil.which(PROGRAM)
    if on_path:
        yield Path(on_path)
    folders = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    for folder in (*folders, Path("/usr/local/cuda"), *sorted(Path("/usr/local").glob("cuda-*"), reverse=True)):
        yield from (folder / "bin" / PROGRAM, folder / PROGRAM / PROGRAM)
    spec = importlib.util.find_spec("nvidia")
    for folder in map(Path, spec.submodule_search_locations or () if spec else ()):
        yield from sorted(folder.rglob(PROGRAM))


def program() -> Path | None:
    return next((path for path in places() if path.is_file() and os.access(path, os.X_OK)), None)


def read(tool: str, output: str) -> dict[str, Any]:
    """What a run's output says: errors and warnings that the tool counted, tests that passed, and `outcome` in words."""
    summaries, passed = list(SUMMARIES[tool].finditer(output)), PASSED.findall(output)
    found: dict[str, Any] = {"passed": int(passed[-1]) if passed else 0}
    if not summaries:
        return {**found, "is_clean": None, "outcome": "no summary: the tool did not come to its end"}
    counts = {name: sum(int(s[name]) for s in summaries) for name in summaries[0].groupdict()}
    found |= counts
    if any(counts.values()):
        told = ", ".join(f"{count} {name if count != 1 else name[:-1]}" for name, count in counts.items() if count)
        return {**found, "is_clean": False, "outcome": told}
    if not found["passed"]:
        return {**found, "is_clean": None, "outcome": "nothing found, but no test has passed under it"}
    return {**found, "is_clean": True, "outcome": "clean"}


def check(path: Path, tool: str, seconds: float, *tests: str) -> dict[str, Any]:
    """One tool over tests, in a process of its own, which CuPy gives memory array by array."""
    command = [str(path), "--tool", tool, *(("--report-api-errors", "no") if tool == "memcheck" else ()),
               sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", PLUGIN,
               f"--run-for={TESTING * seconds:g}", *tests]  # fmt: skip
    start = time.perf_counter()
    found: dict[str, Any] = {"tool": tool, "tests": " ".join(tests)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            output = process.communicate(timeout=seconds)[0]
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # the tests as well, which it has started
            found["last"] = process.communicate()[0].strip().splitlines()[-40:]
            return {**found, "is_clean": None, "outcome": f"stopped after {seconds:.0f} s", "seconds": seconds}
    found |= {**read(tool, output), "status": process.returncode, "seconds": time.perf_counter() - start}
    if not found["is_clean"]:
        found["last"] = output.strip().splitlines()[-40:]
    elif process.returncode:
        found |= {"is_clean": None, "outcome": f"clean, but tests failed under it (status {process.returncode})"}
    return found


def run(seconds: float, unverified: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Each tool over the tests of the verified kernels, then those in the files of others, within `seconds` together; or
    one line that the program is not found."""
    path = program()
    if path is None:
        return [
            {"is_clean": None, "outcome": f"{PROGRAM} is not found: it is part of CUDA's toolkit (PATH, CUDA_HOME)"}
        ]
    sets = [(*TESTS, "-k", f"({SMALL}) and not warpgroup"), *([tuple(unverified)] if unverified else [])]
    runs, end, found = [(tool, tests) for tests in sets for tool in TOOLS], time.perf_counter() + seconds, []
    for index, (tool, tests) in enumerate(runs):
        share = (end - time.perf_counter()) / (len(runs) - index)  # what one leaves is the next one's
        found.append(check(path, tool, max(1.0, share), *tests))
        print(tool, *tests, found[-1]["outcome"], sep=" | ", flush=True)
    return found


__all__ = ["check", "program", "read", "run"]
