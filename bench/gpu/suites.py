"""Tests of tests/gpu, in processes of their own that end with their time, and leave what has failed by then."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MOST_FAILED = 100  # tests, after which the others are let be
STUCK = 150  # seconds for one test among many, where pytest-timeout is there to end its process
GRACE = 15  # seconds for what is stopped to say what has failed so far
PLUGINS = ("ulpgrad.bench.gpu.lost", "ulpgrad.bench.gpu.interrupted")
# Many processes: each with one thread, else they wait for each other's.
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
FAILED = re.compile(r"^(?:FAILED|ERROR) .*$", re.MULTILINE)


def can_end_tests() -> bool:
    """Whether one test that does not end can be ended, and others go on."""
    return all(importlib.util.find_spec(name) is not None for name in ("pytest_timeout", "xdist"))


def run(seconds: float, jobs: int, *what: str, log: Path | None = None, stuck: int = STUCK) -> dict[str, Any]:
    """The files and options of pytest that are asked for, on so many processes. All that they print goes to the end of `log`.
    `stuck`: seconds for one test, where it can be ended."""
    command = [sys.executable, "-m", "pytest", *what, "--tb=short", f"--maxfail={MOST_FAILED}"]
    command += [
        "-p",
        "no:cacheprovider",
        *(f"-p{name}" for name in PLUGINS),
        "-o",
        f"faulthandler_timeout={stuck // 2}",
    ]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if jobs > 1:
        command += ["-q", "-n", str(jobs), "--dist", "worksteal"]  # neighbours need the same kernels compiled
        environment = dict.fromkeys(ONE_THREAD, "1") | environment
        if can_end_tests():
            command += [f"--timeout={stuck}", "--timeout-method=thread"]
    else:
        command += ["-vvv"]  # the last name is that of a test which does not end
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        env=environment,
    ) as process:  # fmt: skip
        try:
            text, status = process.communicate(timeout=max(seconds - GRACE, seconds / 2))[0], process.returncode
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            text, status = f"{_rest(process)}\nstopped after {seconds:g} s", -1
    if log is not None:
        with log.open("a") as file:
            file.write(f"$ {' '.join(command)}\n{text}\n")
    print(text[-6000:], flush=True)
    failed = FAILED.findall(text)[:MOST_FAILED]
    return {
        "status": status,
        "seconds": time.perf_counter() - start,
        "last": text.strip().splitlines()[-1:],
        "failed": failed,
    }


def _rest(process: subprocess.Popen[str]) -> str:
    """What a process that was asked to end prints, it and those that it has started; then none of them is left."""
    try:
        return process.communicate(timeout=GRACE)[0]
    except subprocess.TimeoutExpired:
        pass  # a kernel that does not end
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.communicate()[0]


__all__ = ["can_end_tests", "run"]
