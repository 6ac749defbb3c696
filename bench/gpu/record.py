"""What `make gpu-check` leaves: one JSON file, written after each row, so that a run that is cut off has not been for nothing."""

from __future__ import annotations

import gc
import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ulpgrad.bench.gpu import events
from ulpgrad.bench.peers import page
from ulpgrad.bench.peers.work import Outcome, Work, WrongResult, check, outcome
from ulpgrad.errors import UlpgradError
from ulpgrad.io.atomic import atomic_write
from ulpgrad.kernels import gpu


def measure(work: Work) -> Outcome:
    """One row, by device events, after its results were held against float64."""
    errors = check(work)
    return outcome(work, 1, events.seconds([c.call for c in (work.ours, *work.peers)]), errors)


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
            if isinstance(work, Work):
                work = self.running(work)
            found = measure(work) if isinstance(work, Work) else work
            told(found)
            return found
        except Exception as error:  # one row's failure is a row of the record; the rest is measured
            self.wrong += 1
            self.left_out(f"{type(error).__name__}: {error}", name)
            if not isinstance(error, (UlpgradError, WrongResult)):
                traceback.print_exc()
            return None
        finally:
            work = None  # its operands go before the next row's come
            gc.collect()
            _give_back()

    def running(self, work: Work) -> Work:
        """The row with the peers that run here. Why another does not is told: a library's refusal is no fault of the row."""
        kept = []
        for peer in work.peers:
            try:
                first = [peer.call()]
            except Exception as error:
                self.wrong += isinstance(error, UlpgradError)
                self.left_out(f"{type(error).__name__}: {error}", f"{work.name}, {peer.name}")
            else:
                kept.append(replace(peer, call=_going_on(first, peer.call)))
        return replace(work, peers=kept)

    def left_out(self, why: str, work: str | None = None) -> None:
        self.data["failed"].append({"error": why} if work is None else {"work": work, "error": why})
        print(why if work is None else f"{work}: {why}", flush=True)
        self.write()

    def write(self) -> None:
        with atomic_write(self.out, text=True) as file:
            json.dump(self.data, file, indent=1)
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


__all__ = ["Record", "measure", "told"]
