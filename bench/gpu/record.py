"""What `make gpu-check` leaves: one JSON file, written after each row, so that a run that is cut off has not been for nothing."""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from ulpgrad.bench.gpu import events, lost
from ulpgrad.bench.peers import page
from ulpgrad.bench.peers.work import Outcome, Work, WrongResult, check, outcome
from ulpgrad.errors import DeviceError, UlpgradError
from ulpgrad.io.atomic import atomic_write
from ulpgrad.kernels import gpu


class LostDevice(DeviceError):
    """A row has lost the device for the whole process: nothing more can be measured in it."""


def told(found: Outcome) -> None:
    print(*(cell for line in page.rows([found]) for cell in line), sep=" | ", flush=True)


class Record:
    """`data` is what the file holds; `wrong` counts rows that failed."""

    def __init__(self, out: Path, facts: dict[str, Any]) -> None:
        self.out, self.wrong = out, 0
        self.data: dict[str, Any] = {**facts, "rows": [], "failed": []}

    def attempt(
        self, make: Callable[[], Work | Outcome], wanted: Callable[[str], bool] = lambda name: True
    ) -> Outcome | None:
        """A row measured, or a line about its failure; None as well where its name is not `wanted`."""
        name, work = "a row", None
        try:
            work = make()
            name = work.name if isinstance(work, Work) else work.work
            if not wanted(name):
                return None
            found = self.measured(work) if isinstance(work, Work) else work
            told(found)
        except Exception as error:  # one row's failure is a row of the record; the rest is measured
            self.wrong += 1
            self.left_out(f"{type(error).__name__}: {error}", name)
            if not isinstance(error, (UlpgradError, WrongResult)):
                traceback.print_exc()
            reason = lost.error()
            if reason is not None:
                raise LostDevice(f"the device is lost since {name}: {reason}") from error
            found = None
        work = None  # its operands go before the next row's come
        gc.collect()
        _give_back()
        return found

    def measured(self, work: Work) -> Outcome:
        """One row, by device events, after all results were held against float64. A peer that does not run here, or whose result
        is off, costs the row that peer: why is told. So is a limit that cannot be measured."""
        exact = None if work.exact is None else cache(work.exact)
        errors, kept = check(replace(work, exact=exact, peers=[])), []
        for peer in work.peers:
            try:
                first = [peer.call()]
                peer = replace(peer, call=_going_on(first, peer.call))
                errors |= check(replace(work, exact=exact, peers=[peer]) if exact is None else
                                replace(work, exact=exact, ours=peer, peers=[]))  # fmt: skip
            except Exception as error:
                self.wrong += isinstance(error, UlpgradError)
                self.left_out(f"{type(error).__name__}: {error}", f"{work.name}, {peer.name}")
                if lost.error() is not None:
                    raise
            else:
                kept.append(peer)
        work = replace(work, peers=kept, limit=self._guarded(work))
        return outcome(work, 1, events.seconds([c.call for c in (work.ours, *work.peers)]), errors)

    def _guarded(self, work: Work) -> Callable[[], float | None]:
        def limit() -> float | None:
            try:
                return work.limit()
            except Exception as error:
                self.wrong += 1
                self.left_out(f"{type(error).__name__}: {error}", f"{work.name}, its limit")
                return None

        return limit

    def take(self, found: dict[str, Any]) -> None:
        """What another process has recorded."""
        self.data["rows"] += found.get("rows", [])
        self.data["failed"] += found.get("failed", [])
        self.data.setdefault("networks", []).extend(found.get("networks", []))
        self.data["ceilings"] = found.get("ceilings") or self.data.get("ceilings")
        self.wrong += found.get("wrong", 0)
        self.write()

    def left_out(self, why: str, work: str | None = None) -> None:
        self.data["failed"].append({"error": why} if work is None else {"work": work, "error": why})
        print(why if work is None else f"{work}: {why}", flush=True)
        self.write()

    def write(self) -> None:
        with atomic_write(self.out, text=True) as file:
            json.dump({**self.data, "wrong": self.wrong}, file, indent=1)
            file.write("\n")


def _going_on(first: list[Any], call: Callable[[], Any]) -> Callable[[], Any]:
    """A call that was made once: first what it gave, for calls take their operands in turn."""
    return lambda: first.pop() if first else call()


def _give_back() -> None:
    """Both pools give the device what they keep for later: neither can use what the other keeps."""
    if gpu.mode():
        return
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    gpu.xp().get_default_memory_pool().free_all_blocks()


__all__ = ["LostDevice", "Record", "told"]
