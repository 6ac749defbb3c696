"""A desk: a process in which answers are examined one after the other, each under a time limit."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from ulpgrad.bench.classroom.exercise import Ratio, Verdict
from ulpgrad.errors import DataError

LIMIT = 60.0  # seconds for one answer
SHOWN = 2000  # letters of what an answer printed


class Desk:
    """`with Desk() as desk: desk.examine(name, path)`. `environment` adds to that of the process.

    Compiled kernels check their indices unless `checked` is off (for timing). A process that was killed, or died, is
    replaced at the next answer.
    """

    def __init__(self, *, checked: bool = True, environment: dict[str, str] | None = None) -> None:
        self.checked, self.environment = checked, environment or {}
        self.process: subprocess.Popen[str] | None = None
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.folder = tempfile.TemporaryDirectory(prefix="ulpgrad-exercise-")
        self.printed = Path(self.folder.name) / "printed"

    def __enter__(self) -> Desk:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._kill()
        self.folder.cleanup()

    def examine(
        self, exercise: str, path: Path, *, seed: int | None = None, race: bool = False, limit: float = LIMIT
    ) -> Verdict:
        """Examine a file as an answer to an exercise, on values drawn from `seed` (default: a fresh one)."""
        if not path.is_file():
            raise DataError(
                f"{path}: there is no such file; `ulpgrad exercise start {exercise}` makes one to begin with"
            )
        seed = secrets.randbits(32) if seed is None else seed
        process = self._running()
        begin = self.printed.stat().st_size
        stages: list[str] = []
        ratios: tuple[Ratio, ...] = ()
        message: str | None = None
        end = time.monotonic() + limit
        request = {"exercise": exercise, "path": str(path.resolve()), "seed": seed, "race": race}
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            while message is None:
                event = self.events.get(timeout=max(0.0, end - time.monotonic()))
                if event is None:
                    message = _ended(process.wait())
                    self._kill()
                elif "stage" in event:
                    stages.append(event["stage"])
                elif "ratios" in event:
                    ratios = tuple(Ratio(*r) for r in event["ratios"])
                else:
                    message = event["message"]
        except queue.Empty:
            self._kill()
            message = (
                f"stopped after {limit:g} seconds. Is there a loop that does not end, or an operand copied in one?"
            )
        except BaseException:
            self._kill()
            raise
        with open(self.printed, "rb") as file:
            file.seek(begin)
            output = file.read(SHOWN).decode(errors="replace").strip()
        where = stages[-1] if stages else ""
        return Verdict(exercise, not message, seed, message, where, tuple(dict.fromkeys(stages)), output, ratios)

    def _running(self) -> subprocess.Popen[str]:
        """The process, started if it is not there."""
        if self.process is not None and self.process.poll() is None:
            return self.process
        self._kill()
        self.events = queue.Queue()
        own = {
            "NUMBA_CACHE_DIR": self.folder.name,
            "NUMBA_BOUNDSCHECK": "1" if self.checked else "0",
            "TRITON_INTERPRET": "1",
        }
        with open(self.printed, "ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "ulpgrad.bench.classroom.worker"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed, text=True,
                env={**os.environ, **own, **self.environment}, start_new_session=True,
            )  # fmt: skip
        threading.Thread(target=_listen, args=(self.process.stdout, self.events), daemon=True).start()
        return self.process

    def _kill(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):  # a request that was never read
                        pipe.close()


def _listen(lines: IO[str], events: queue.Queue[dict[str, Any] | None]) -> None:
    try:
        for line in lines:
            events.put(json.loads(line))
    except ValueError:  # closed while it was read
        pass
    finally:
        events.put(None)


def _ended(status: int) -> str:
    if status >= 0:
        return f"the answer ended the process, with status {status}; it should return instead"
    name = signal.Signals(-status).name
    return (
        f"the answer crashed the process ({name}): a kernel wrote to memory that is not its own, or took too much of it"
    )


__all__ = ["LIMIT", "Desk"]
