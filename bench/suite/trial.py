"""The trial of `ulpgrad bench compare`: runs of the same code, which it must not tell apart, and runs with a planted slow-down,
which it must find.

    ulpgrad bench trial reports/trial                        # ten runs of the same code, three with a plant
    ulpgrad bench trial reports/trial --same 4 --planted 2 --threads 2

Runs that the folder has are kept, so that a trial can be stopped, go on, and be made longer. Planted is a rung above all others,
which calls the one that would have run and then waits for a fifth of the time that it took.
"""

from __future__ import annotations

import itertools
import math
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulpgrad.bench.suite import record
from ulpgrad.bench.suite.compare import Change, compare
from ulpgrad.bench.suite.record import Record
from ulpgrad.errors import KernelError
from ulpgrad.formats import float32
from ulpgrad.kernels.registry import Request, find, kernel, ladder

OPS = ("matmul", "softmax", "layer_norm", "exp", "sum", "attention")
ROUNDS = 12
FACTOR = 1.2
PLANTED = "cpu/planted"
FEW = 3  # runs before, where there are several
COLUMNS = (
    "runs", "comparisons", "rows", "planted", "fine enough", "found", "false", "unsure", "run to run", "needed, half", "90 %",
)  # fmt: skip


def plant(ops: Sequence[str], factor: float = FACTOR) -> None:
    """Make ops take `factor` times as long, in float32."""
    for name in ops:
        op = find(name)

        def build(request: Request) -> Callable[..., Any]:
            below = [r for r in ladder(request.op, request.device) if r.name != PLANTED and r.refusal(request) is None]
            if not below:
                raise KernelError(f"{request.op.name}: {PLANTED} found no rung that takes this call: it needs float32")
            run = below[-1].run(request) if below[-1].build else below[-1].run
            return _slowed(run, factor)

        kernel(op, PLANTED, rank=1_000_000, formats=[float32], contiguous=True, build=True, idea="Slower.")(build)


def _slowed(run: Callable[..., Any], factor: float) -> Callable[..., Any]:
    def call(*arrays: Any, **params: Any) -> Any:
        start = time.perf_counter()
        result = run(*arrays, **params)
        end = start + factor * (time.perf_counter() - start)
        while time.perf_counter() < end:
            pass
        return result

    return call


@dataclass(frozen=True)
class Tally:
    """What comparisons of a kind came to. `planted`: rows with a plant; `fine`: those of which the comparison says that it could
    see as much; `found`: those that it saw. `false`, `unsure`: of the other rows."""

    comparisons: int
    rows: int
    planted: int
    fine: int
    found: int
    false: int
    unsure: int
    alike: float
    needed: tuple[float, ...]


def tally(pairs: Iterable[tuple[Sequence[Record], Record]]) -> Tally:
    """Compare every pair of runs before and a run after."""
    changes: list[Change] = []
    alike = []
    for before, after in pairs:
        found = compare(before, after)
        changes += found.changes
        alike.append(found.alike)
    with_plant = [c for c in changes if c.after.rung == PLANTED]
    others = [c for c in changes if c.after.rung != PLANTED]
    return Tally(
        len(alike), len(changes), len(with_plant), sum(c.needed <= FACTOR for c in with_plant),
        sum(c.verdict == "slower" for c in with_plant),
        sum(c.verdict in ("slower", "faster") for c in others), sum(c.verdict == "unsure" for c in others),
        math.fsum(alike) / max(1, len(alike)), tuple(sorted(c.needed for c in changes)),
    )  # fmt: skip


def tallies(same: Sequence[Record], planted: Sequence[Record]) -> Iterator[tuple[str, Tally]]:
    """One run against another, and against several."""
    yield "same code, each with each", tally(([a], b) for a, b in itertools.combinations(same, 2))
    if len(same) > FEW:
        yield f"same code, {FEW} runs before", tally((same[i - FEW : i], same[i]) for i in range(FEW, len(same)))
    if planted:
        yield "planted, one run before", tally(([a], b) for a in same for b in planted)
        if len(same) >= FEW:
            yield (
                f"planted, {FEW} runs before",
                tally((same[i - FEW : i], b) for i in range(FEW, len(same) + 1) for b in planted),
            )


def measure(
    folder: Path,
    same: int,
    planted: int,
    threads: int,
    rounds: int = ROUNDS,
    told: Callable[[str], None] = lambda line: None,
) -> None:
    """The runs that the folder has not yet, planted ones among the others. `told`: of each run that is made."""
    wanted = sorted(
        [(i / same, f"same-{i}", ()) for i in range(same)]
        + [((i + 0.5) / planted, f"planted-{i}", OPS[i::planted]) for i in range(planted)]
    )
    for _, name, ops in wanted:
        path = folder / f"{name}.json"
        if path.exists() and record.read(path).ended is not None:
            continue
        command = [sys.executable, "-m", "ulpgrad.cli", "bench", ",".join(OPS), "--threads", str(threads),
                   "--rounds", str(rounds), "--peers", "numpy", "--json", str(path)]  # fmt: skip
        if ops:
            file = folder / f"{name}.py"
            file.write_text(f"from ulpgrad.bench.suite.trial import plant\n\nplant({ops!r})\n")
            command += ["--file", str(file)]
        start = time.perf_counter()
        if code := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise KernelError(f"{name}: the run ended with status {code}; see what it says: {shlex.join(command)}")
        told(f"{name}: {time.perf_counter() - start:.0f} s")


def runs(folder: Path, kind: str) -> list[Record]:
    """Those of a kind, in the order in which they were made."""
    found = [record.read(path) for path in folder.glob(f"{kind}-*.json")]
    return sorted((run for run in found if run.ended is not None), key=lambda run: run.started)


def lines(folder: Path) -> list[tuple[str, ...]]:
    """What comparisons of the folder's runs come to, as COLUMNS."""
    return [
        (name, *map(str, (t.comparisons, t.rows, t.planted, t.fine, t.found, t.false, t.unsure)), f"{t.alike:.1%}",
         *(f"{t.needed[int(q * (len(t.needed) - 1))]:.2f}x" for q in (0.5, 0.9)))
        for name, t in tallies(runs(folder, "same"), runs(folder, "planted")) if t.rows
    ]  # fmt: skip


__all__ = ["COLUMNS", "FACTOR", "OPS", "PLANTED", "Tally", "lines", "measure", "plant", "runs", "tallies", "tally"]
