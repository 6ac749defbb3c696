"""The other end of a worker: started with its threads pinned, watched, and replaced when it dies or takes too long."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

THREADS = ("ULPGRAD_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
LAST = 200  # letters of what a worker said last
STARTING = "the start"  # whose turn it is before a worker has said anything


class Died(Exception):
    """A worker that ended, or did not answer, in the turn of `name`."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name, self.why = name, why


class Worker:
    """A process that measures. It is started by the first request, and again by the first one after it died. `package`: the
    folder in which it finds ulpgrad, where that is not the one that runs here."""

    def __init__(self, threads: int, limit: float, files: Sequence[Path] = (), package: Path | None = None) -> None:
        self.threads, self.limit, self.files, self.package = threads, limit, files, package
        self.process: subprocess.Popen[str] | None = None

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """The rows of a cell. Raises Died."""
        steps = self.steps(request)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                rows: list[dict[str, Any]] = done.value
                return rows

    def steps(self, request: dict[str, Any]) -> Generator[None, None, list[dict[str, Any]]]:
        """The same, stopping before each turn of a request for "turns" until it is told to go on."""
        process = self.process or self._start()
        assert process.stdin is not None
        rows: list[dict[str, Any]] = []
        whose = STARTING
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            while True:
                answer = json.loads(self._line())
                if "end" in answer:
                    return rows
                if "wait" in answer:
                    yield
                    process.stdin.write("\n")
                    process.stdin.flush()
                whose = answer.get("begin", whose)
                if "row" in answer:
                    rows.append(answer["row"])
        except (BrokenPipeError, EOFError):
            raise Died(whose, self._why()) from None
        except queue.Empty:
            self.close()
            raise Died(whose, f"no end after {self.limit:g} s; --limit gives it longer") from None
        except BaseException:  # Ctrl-C: what the worker is at belongs to nobody
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            for stream in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):  # what was not sent is not missed
                    if stream is not None:
                        stream.close()
            self.said.close()
            self.process = None

    def _start(self) -> subprocess.Popen[str]:
        self.said = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  as long as the process
        count = str(self.threads)
        found = {} if self.package is None else {"PYTHONPATH": str(self.package)}
        with _pinned(self.threads):
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ulpgrad.bench.suite.worker", *map(str, self.files)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True,
                env={**os.environ, **dict.fromkeys(THREADS, count), "JAX_PLATFORMS": "cpu", **found},
            )  # fmt: skip
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()
        return self.process

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError, OSError):  # closed while it was read
            for line in process.stdout:
                lines.put(line)
        lines.put("")

    def _line(self) -> str:
        line = self.lines.get(timeout=self.limit)
        if not line:
            raise EOFError
        return line

    def _why(self) -> str:
        """How the process ended, and the last that it said."""
        assert self.process is not None
        code = self.process.wait()
        self.said.seek(0)
        last = next((line.strip() for line in reversed(self.said.readlines()) if line.strip()), "")
        self.close()
        if code == -signal.SIGKILL:
            how = "killed by the system, as it does where memory runs out"
        elif code < 0:
            how = f"crashed: {signal.strsignal(-code) or f'signal {-code}'}"
        else:
            how = f"ended with status {code}"
        return f"{how}; its last words: {last[:LAST]}" if last else how


def cores(threads: int) -> list[int]:
    """The cores that a worker is pinned to; empty where the system has no such thing."""
    return sorted(os.sched_getaffinity(0))[:threads] if hasattr(os, "sched_getaffinity") else []


@contextlib.contextmanager
def _pinned(threads: int) -> Iterator[None]:
    """What is started inside inherits the cores."""
    chosen = cores(threads)
    if not chosen:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, chosen)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


__all__ = ["STARTING", "Died", "Worker", "cores"]
