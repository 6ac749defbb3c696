"""The trial of comparisons: the same code measured against itself, which must not be told apart, and against itself with a
planted slow-down, which must be found.

    ulpgrad bench trial reports/trial                        # ten times the same code, three times with a plant
    ulpgrad bench trial reports/trial --same 4 --planted 2 --threads 2

Runs that the folder has are kept, so that a trial can be stopped, go on, and be made longer. Planted is a rung above all others,
which calls the one that would have run and then waits for a fifth of the time that it took. What runs of different times would
have told, of which one knows nothing of the other, is shown beside it.
"""

from __future__ import annotations

import itertools
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ulpgrad.bench.suite.compare import Comparison, compare, in_turns
from ulpgrad.bench.suite.turns import FIND, Pair, read
from ulpgrad.bench.suite.version import ROOT
from ulpgrad.errors import KernelError
from ulpgrad.formats import float32
from ulpgrad.kernels.registry import Request, find, kernel, ladder

OPS = ("matmul", "softmax", "layer_norm", "exp", "sum", "attention")
FACTOR = 1.2
ROUNDS = 40  # of a run, at most
PLANTED = "cpu/planted"
CALLS, FIRST = (
    16,
    4,
)  # that are let through to learn what they take, and of these the first, whose memory is cold or cached
COLUMNS = (
    "runs", "comparisons", "rows", "planted", "fine enough", "found", "false", "unsure", "needed, half", "all",
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
    """Waits after each call. Where memory is the limit it catches up meanwhile, and the next call is quicker than usual: of
    a fifth some 10 to 15 % are left."""

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
    see as much; `found`: those that it saw. `false`, `unsure`: of the other rows. `needed`: what a change would have needed."""

    comparisons: int
    rows: int
    planted: int
    fine: int
    found: int
    false: int
    unsure: int
    needed: tuple[float, ...]


def tally(comparisons: Iterable[Comparison]) -> Tally:
    """Count them."""
    every = [found.changes for found in comparisons]
    changes = list(itertools.chain.from_iterable(every))
    with_plant = [c for c in changes if c.after.rung == PLANTED]
    others = [c for c in changes if c.after.rung != PLANTED]
    return Tally(
        len(every), len(changes), len(with_plant), sum(c.needed <= FACTOR for c in with_plant),
        sum(c.verdict == "slower" for c in with_plant),
        sum(c.verdict in ("slower", "faster") for c in others), sum(c.verdict == "unsure" for c in others),
        tuple(sorted(c.needed for c in changes)),
    )  # fmt: skip


def tallies(same: Sequence[Pair], planted: Sequence[Pair]) -> Iterator[tuple[str, Tally]]:
    """Versions in turns; and as if each had been measured alone, one run before another."""
    yield "in turns, same code", tally(map(in_turns, same))
    yield "in turns, planted", tally(map(in_turns, planted))
    yield (
        "at different times, same code",
        tally(compare([a.before], b.after) for a, b in itertools.combinations(same, 2)),
    )
    yield "at different times, planted", tally(compare([a.before], b.after) for a in same for b in planted)


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
        earlier = read(path)
        if earlier is not None and earlier.after.ended is not None:
            continue
        command = [sys.executable, "-m", "ulpgrad.cli", "bench", "against", str(ROOT), ",".join(OPS), "--threads", str(threads),
                   "--rounds", str(rounds), "--find", str(FIND), "--json", str(path)]  # fmt: skip
        if ops:
            file = folder / f"{name}.py"
            file.write_text(f"from ulpgrad.bench.suite.trial import plant\n\nplant({ops!r})\n")
            command += ["--file", str(file)]
        start = time.perf_counter()
        if code := subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:
            raise KernelError(f"{name}: the run ended with status {code}; see what it says: {shlex.join(command)}")
        told(f"{name}: {time.perf_counter() - start:.0f} s")


def runs(folder: Path, kind: str) -> list[Pair]:
    """Those of a kind, in the order in which they were made."""
    found = [pair for path in folder.glob(f"{kind}-*.json") if (pair := read(path)) is not None]
    return sorted((pair for pair in found if pair.after.ended is not None), key=lambda pair: pair.after.started)


def lines(folder: Path) -> list[tuple[str, ...]]:
    """What comparisons of the folder's runs come to, as COLUMNS."""
    return [
        (name, *map(str, (t.comparisons, t.rows, t.planted, t.fine, t.found, t.false, t.unsure)),
         *(f"{t.needed[int(q * (len(t.needed) - 1))]:.2f}x" for q in (0.5, 1)))
        for name, t in tallies(runs(folder, "same"), runs(folder, "planted")) if t.rows
    ]  # fmt: skip


def as_data(folder: Path) -> dict[str, Any]:
    """The same as JSON takes it, with where it was measured."""
    made = [*runs(folder, "same"), *runs(folder, "planted")]
    last = made[-1].after if made else None
    return {"kind": "ulpgrad-bench-trial", "version": 1, "machine": last and last.machine, "commit": last and last.commit,
            "threads": last and last.threads, "started": last and last.started, "factor": FACTOR, "columns": list(COLUMNS),
            "lines": [list(line) for line in lines(folder)]}  # fmt: skip


__all__ = [
    "COLUMNS",
    "FACTOR",
    "OPS",
    "PLANTED",
    "Tally",
    "as_data",
    "lines",
    "measure",
    "plant",
    "runs",
    "tallies",
    "tally",
]
