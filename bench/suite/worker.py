"""The process in which cells are measured. It reads a request a line and answers with lines; if it dies, another is started.

{"op", "format", "size", "device", "seed", "rungs", "peers", "without", "samples", "rounds", "number", "threads"}   a request
{..., "turns": COUNT}                             one whose samples are taken in so many turns, each when it is told to
{"begin": LABEL}                                  whose turn it is: if nothing more comes, it was this one
{"wait": true}                                    a turn is about to begin: with the next line it does
{"row": {...}}                                    a row of the record
{"end": true}                                     the cell is finished
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from ulpgrad.bench.suite import measure, peers
from ulpgrad.bench.suite.cells import Cell
from ulpgrad.bench.suite.contenders import Contender, Refusal, Task, labelled, ours
from ulpgrad.bench.suite.record import OURS, Row
from ulpgrad.errors import DataError, UlpgradError
from ulpgrad.kernels.threads import set_num_threads


def serve(requests: IO[str], answers: IO[str]) -> None:
    """Answer requests until there are no more."""

    def tell(**data: Any) -> None:
        answers.write(json.dumps(data, allow_nan=False) + "\n")
        answers.flush()

    def wait() -> None:
        tell(wait=True)
        if not requests.readline():
            raise SystemExit  # nobody is there who would hear more

    for line in requests:
        for row in answer(json.loads(line), lambda name: tell(begin=name), wait):
            tell(row=row.as_data())
        tell(end=True)


def answer(request: dict[str, Any], told: measure.Told, wait: Callable[[], None] = lambda: None) -> list[Row]:
    """The rows of one cell. What a cell as a whole cannot do is a row of its own."""
    cell = Cell(request["op"], request["format"], request["size"], request["device"])
    threads = request["threads"]
    set_num_threads(threads)
    told("operands")
    nobody = Row(cell.op, cell.format, cell.size, cell.device, OURS, None, threads, "refused")
    try:
        task = Task(cell, request["seed"])
        found: list[Contender | Refusal] = ours(task, request["rungs"], request["without"], told)
    except UlpgradError as error:
        return [replace(nobody, reason=str(error))]
    except MemoryError as error:
        return [replace(nobody, state="too large", reason=measure.reason(error))]
    except Exception as error:  # a problem that cannot be made at this size
        return [replace(nobody, state="failed", reason=measure.reason(error))]
    found += peers.of(task, request["peers"], threads)
    taking_part = [c for c in found if labelled(c.name, c.rung) not in request["without"]]
    try:
        turns = measure.Turns(request["turns"], wait) if request.get("turns") else None
        return measure.cell(task, taking_part, threads, request["samples"], told, request["rounds"],
                            request["number"], turns)  # fmt: skip
    except Exception as error:  # of the suite itself, or of an op's reference: the rest can still be measured
        return [replace(nobody, state="failed", reason=measure.reason(error))]


_loaded: set[Path] = set()


def load(path: Path) -> None:
    """Run a Python file that registers ops or rungs, once. DataError where it cannot be read or does not run."""
    if path.resolve() in _loaded:
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise DataError(f"{path}: expected a Python file that registers rungs with ulpgrad.kernels.registry.kernel")
    module = importlib.util.module_from_spec(spec)
    _loaded.add(path.resolve())
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path}: {type(error).__name__}: {error}") from error


def main() -> None:
    """Requests come on standard input, answers leave on standard output; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for name in sys.argv[1:]:
        load(Path(name))
    serve(sys.stdin, answers)


if __name__ == "__main__":
    main()
