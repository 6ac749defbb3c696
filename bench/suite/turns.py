"""Two versions of ulpgrad measured in turns, in one run: what `ulpgrad bench against` leaves behind, and how it is made.

Each round has a process of both versions. They take a cell at the same time, and its samples one after another (`paired` says
how that is judged). A cell has as many rounds as it needs for a change by the factor `find` to be seen for certain, or as many as
were allowed. The record is written after each, so that a run that was stopped goes on.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Generator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ulpgrad.bench.suite import paired, rounds, run
from ulpgrad.bench.suite.cells import Cell, too_large
from ulpgrad.bench.suite.measure import SAMPLES_OF_TURN
from ulpgrad.bench.suite.process import STARTING, Died, Worker
from ulpgrad.bench.suite.record import OURS, Record, Row
from ulpgrad.bench.suite.run import Settings, Told
from ulpgrad.bench.suite.version import Version
from ulpgrad.errors import DataError, KernelError
from ulpgrad.io.atomic import atomic_write

KIND, VERSION = "ulpgrad-bench-turns", 1
TURNS = 8  # of a cell in a round: an even number, so that each version begins as often as the other
FIND = 1.1
ROUNDS = 24


@dataclass(frozen=True)
class Pair:
    """The records of both versions. `against`: what the one before was called; `find`: the factor that was to be seen for
    certain; `turns`: of each version in a round."""

    against: str
    before: Record
    after: Record
    find: float = FIND
    turns: int = TURNS

    @classmethod
    def from_data(cls, data: Any, name: str) -> Pair:
        """What `as_data` wrote. DataError for a newer version, or what is not as it should be."""
        if not isinstance(data.get("version"), int) or data["version"] > VERSION:
            raise DataError(
                f"{name}: version {data.get('version')} of two versions in turns; this ulpgrad reads up to {VERSION}: update it"
            )
        try:
            before, after = (Record.from_data(data[which], f"{name}, {which}") for which in ("before", "after"))
            return cls(str(data["against"]), before, after, float(data["find"]), int(data["turns"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{name}: cut short or changed by hand: {error}") from None

    def as_data(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {"kind": KIND, "version": VERSION, "against": self.against, "find": self.find, "turns": self.turns,
                "before": self.before.as_data(), "after": self.after.as_data()}  # fmt: skip


def _is_pair(data: Any) -> bool:
    return isinstance(data, dict) and data.get("kind") == KIND


def read(path: Path) -> Pair | None:
    """Two versions from their file; None for a file of something else, or none. DataError for a newer version, or a part."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return Pair.from_data(data, str(path)) if _is_pair(data) else None


def write(path: Path, pair: Pair) -> None:
    """The whole pair or nothing. DataError if it cannot be written."""
    with atomic_write(path, text=True) as file:
        json.dump(pair.as_data(), file, allow_nan=False, separators=(",", ":"))
        file.write("\n")


def start(settings: Settings, version: Version, find: float, command: str, path: Path | None = None) -> Pair:
    """A run that is about to begin, or the unfinished one in the file that goes on. DataError for a file that cannot be
    written, and for one that holds something else."""
    after = run.start(settings, command)
    made = Pair(version.name, replace(after, commit=version.commit), after, find)
    earlier = None if path is None else read(path)
    if earlier is not None and earlier.after.ended is None and all(
        run.is_same(*both) for both in ((earlier.before, made.before), (earlier.after, made.after))
    ):  # fmt: skip
        made = earlier
    if path is not None:
        write(path, made)
    return made


def finish(
    pair: Pair, settings: Settings, version: Version, path: Path | None = None, told: Told = lambda name, rows: None
) -> Pair:
    """Measure what the pair does not have. After each cell it is written; `told` gets its name and its rows, ours of before
    and after."""
    wanted = run.plan(settings)
    both: list[dict[Cell, list[Row]]] = [{cell: [] for cell in wanted} for _ in range(2)]
    for found, made in zip(both, (pair.before, pair.after), strict=True):
        for row in made.rows:
            found.setdefault(Cell(row.op, row.format, row.size, row.device), []).append(row)
    seed = int(pair.after.settings["seed"])
    for number in range(settings.rounds):
        left = [c for c in wanted if not is_settled(both[0][c], both[1][c], len(wanted), pair)]
        if not left:
            break
        workers = (
            Worker(settings.threads, settings.limit, package=version.package),
            Worker(settings.threads, settings.limit, [Path(name) for name in settings.files]),
        )
        try:
            for cell in left:
                if rounds.taken(both[1][cell]) > number:
                    continue
                name = f"{cell.name} ({number + 1} of at most {settings.rounds})"
                told(name, [])
                rows = in_turns(workers, cell, settings, seed + number, number)
                for found, own in zip(both, rows, strict=True):
                    found[cell] = rounds.joined(found[cell], own)
                pair = _with(pair, both)
                if path is not None:
                    write(path, pair)
                told(name, [*rows[0], *rows[1]])
        finally:
            for worker in workers:
                worker.close()
    now = run.now()
    pair = replace(pair, before=replace(pair.before, ended=now), after=replace(pair.after, ended=now))
    if path is not None:
        write(path, pair)
    return pair


def _with(pair: Pair, both: list[dict[Cell, list[Row]]]) -> Pair:
    before, after = (tuple(row for rows in found.values() for row in rows) for found in both)
    return replace(pair, before=replace(pair.before, rows=before), after=replace(pair.after, rows=after))


def is_settled(before: list[Row], after: list[Row], cells: int, pair: Pair) -> bool:
    """Whether a cell needs no further round: nothing is left to measure, or a change by `find` could not have been missed."""
    earlier = {row.key: row for row in before}
    times = [(earlier[row.key].time, row.time) for row in after if row.key in earlier]
    if not times:
        return bool(before and after)
    known = [paired.interval(paired.differences(a, b, pair.turns), cells)[1] for a, b in times if a and b]
    return all(reach <= math.log(pair.find) / 2 for reach in known)


def in_turns(
    workers: tuple[Worker, Worker], cell: Cell, settings: Settings, seed: int, number: int
) -> tuple[list[Row], list[Row]]:
    """One round of a cell, by both."""
    nobody = Row(cell.op, cell.format, cell.size, cell.device, OURS, None, settings.threads, "failed")
    if (why := too_large(cell)) is not None:
        row = replace(nobody, state="too large", reason=why)
        return [row], [row]
    request: dict[str, Any] = {**asdict(cell), "seed": seed, "number": number, "rungs": settings.rungs, "peers": [],
                               "without": [], "samples": TURNS * SAMPLES_OF_TURN, "rounds": 1, "threads": settings.threads,
                               "turns": TURNS}  # fmt: skip
    steps = [_steps(worker, request, nobody) for worker in workers]
    order = random.sample((0, 1), 2)
    rows: dict[int, list[Row]] = {}
    while len(rows) < 2:
        for i in order:
            if i not in rows:
                try:
                    next(steps[i])
                except StopIteration as done:
                    rows[i] = done.value
        order.reverse()
    return rows[0], rows[1]


def _steps(worker: Worker, request: dict[str, Any], nobody: Row) -> Generator[None, None, list[Row]]:
    """A cell in one version; a crash is a row that says so."""
    try:
        found = yield from worker.steps(request)
    except Died as death:
        if death.name == STARTING:
            raise KernelError(f"the process that measures does not start: {death.why}") from None
        return [replace(nobody, reason=f"{death.name}: {death.why}")]
    return [Row.from_data(row) for row in found]


__all__ = ["FIND", "KIND", "ROUNDS", "TURNS", "Pair", "finish", "in_turns", "is_settled", "read", "start", "write"]
