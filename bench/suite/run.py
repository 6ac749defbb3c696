"""A run: every cell in a worker, in each of several rounds; what is finished is kept in the record at once, so that an
interrupted run can go on."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ulpgrad.bench import machine
from ulpgrad.bench.suite import cells, peers, record, rounds
from ulpgrad.bench.suite.cells import Cell
from ulpgrad.bench.suite.contenders import labelled
from ulpgrad.bench.suite.measure import QUICK
from ulpgrad.bench.suite.process import STARTING, Died, Worker, cores
from ulpgrad.bench.suite.record import OURS, Record, Row
from ulpgrad.errors import ArgumentError, DataError, KernelError
from ulpgrad.kernels import registry

SAMPLES = 40
LONG, OF_LONG = 0.5, 3  # seconds: calls that take longer are measured in this many rounds only
ROUNDS = 8  # of a run that is not quick: with fewer, chance has a word in comparisons
LIMIT = 180.0  # seconds without an answer after which a contender is given up
EVERY = ("best", "all")


@dataclass(frozen=True)
class Settings:
    """What was asked for. `rungs`: best, all, or names with commas; `files`: Python files that register ops or rungs.
    `samples`: of each contender, in all rounds together."""

    ops: str = ""
    formats: str = ""
    sizes: tuple[int, ...] = ()
    device: str = "cpu"
    peers: str | None = None
    rungs: str = "best"
    threads: int = 1
    samples: int = SAMPLES
    rounds: int = ROUNDS
    limit: float = LIMIT
    files: tuple[str, ...] = ()


Told = Callable[[str, list[Row]], None]


def start(settings: Settings, command: str, path: Path | None = None) -> Record:
    """The record of a run that is about to begin, or of the interrupted one in the file that goes on.

    A run goes on where an unfinished one of the same command, commit, machine and versions stopped. Raises DataError for a
    file that cannot be written, before anything is measured.
    """
    versions = {**machine.versions(), **peers.versions()}
    made = Record(
        command, machine.commit(), machine.machine(), versions, settings.threads, now(), None, machine.busy(),
        {**asdict(settings), "files": list(settings.files), "sizes": list(settings.sizes), "cores": cores(settings.threads),
         "seed": secrets.randbits(32)},
    )  # fmt: skip
    earlier = _unfinished(path)
    if earlier is not None and is_same(earlier, made):
        made = replace(earlier, busy=earlier.busy or made.busy)
    if path is not None:
        record.write(path, made)
    return made


def finish(made: Record, settings: Settings, path: Path | None = None, told: Told = lambda name, rows: None) -> Record:
    """Measure what the record does not have. After each cell the record is written; `told` gets its name and its rows."""
    wanted = plan(settings)
    found: dict[Cell, list[Row]] = {cell: [] for cell in wanted}
    for row in made.rows:
        found.setdefault(Cell(row.op, row.format, row.size, row.device), []).append(row)
    asked = peers.chosen(settings.peers)
    for number in range(settings.rounds):
        worker = Worker(settings.threads, settings.limit, [Path(name) for name in settings.files])
        which = f" ({number + 1} of {settings.rounds})" if settings.rounds > 1 else ""
        try:
            for cell in wanted:
                if found[cell] and (rounds.taken(found[cell]) > number or all(map(_is_through, found[cell]))):
                    continue
                told(cell.name + which, [])
                rows = measured(worker, cell, settings, asked, int(made.settings["seed"]), number, found[cell])
                found[cell] = rounds.joined(found[cell], rows)
                made = replace(made, rows=tuple(itertools.chain.from_iterable(found.values())))
                if path is not None:
                    record.write(path, made)
                told(cell.name + which, rows)
        finally:
            worker.close()
    made = replace(made, ended=now())
    if path is not None:
        record.write(path, made)
    return made


def plan(settings: Settings) -> list[Cell]:
    """The cells that settings ask for. Raises the typed error of whatever in them is unknown."""
    from ulpgrad.bench.suite.worker import load

    for name in settings.files:
        load(Path(name))
    wanted = cells.choose(settings.ops, settings.formats, settings.sizes, settings.device)
    peers.chosen(settings.peers)
    if settings.rungs not in EVERY:
        known = {r.name for c in wanted for r in registry.ladder(registry.find(c.op), settings.device)}
        for name in filter(None, map(str.strip, settings.rungs.split(","))):
            if name not in known:
                near = cells.nearest(name, sorted(known))
                raise ArgumentError(f"there is no rung {name!r} of these ops; did you mean {near}, best or all?")
    return wanted


def sizes(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them. ArgumentError for anything else."""
    try:
        found = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        found = (0,)
    if any(n < 1 for n in found):
        raise ArgumentError(f"--sizes {text}: expected whole numbers of at least 1, such as 128,1024")
    return found


def measured(
    worker: Worker, cell: Cell, settings: Settings, asked: Sequence[str], seed: int, number: int = 0,
    earlier: Sequence[Row] = (),
) -> list[Row]:  # fmt: skip
    """The rows of a cell. Whoever brings the worker down gets a row that says so, and the others are measured without it, and
    without those who failed in earlier rounds, or take long and have been measured often enough."""
    nobody = Row(cell.op, cell.format, cell.size, cell.device, OURS, None, settings.threads, "failed")
    if (why := cells.too_large(cell)) is not None:
        return [replace(nobody, state="too large", reason=why)]
    request: dict[str, Any] = {**asdict(cell), "seed": seed + number, "number": number, "rungs": settings.rungs,
                               "peers": list(asked),
                               "without": [labelled(row.contender, row.rung) for row in earlier if _is_through(row)],
                               "samples": settings.samples, "rounds": settings.rounds, "threads": settings.threads}  # fmt: skip
    lost: list[Row] = []
    while True:
        try:
            return [Row.from_data(row) for row in worker.ask(request)] + lost
        except Died as death:
            if death.name == STARTING:
                raise KernelError(f"the process that measures does not start: {death.why}") from None
            contender, _, rung = death.name.partition(" ")
            known = contender in (OURS, *peers.NAMES)
            lost.append(replace(nobody, contender=contender if known else OURS, rung=rung or None if known else None,
                                reason=death.why if known else f"{death.name}: {death.why}"))  # fmt: skip
            if not known or death.name in request["without"]:
                return lost
            request["without"].append(death.name)


def _is_through(row: Row) -> bool:
    """Whether a row needs no further round."""
    return row.time is None or (row.time.median > LONG and len(row.time.rounds) >= OF_LONG)


def _unfinished(path: Path | None) -> Record | None:
    """What an interrupted run left in the file; None where there is nothing to go on with."""
    if path is None or not path.exists():
        return None
    try:
        found = record.read(path)
    except DataError:
        return None  # another kind of file, which is replaced as every --json does
    return found if found.ended is None else None


def is_same(earlier: Record, now: Record) -> bool:
    """Whether an unfinished run is the one that begins now."""
    return all(
        getattr(earlier, name) == getattr(now, name) for name in ("command", "commit", "machine", "versions", "threads")
    )


def now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


__all__ = ["LIMIT", "QUICK", "ROUNDS", "SAMPLES", "Settings", "finish", "is_same", "measured", "now", "plan", "sizes",
           "start"]  # fmt: skip
