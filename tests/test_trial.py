"""The trial of comparisons: what it plants, which runs it makes and keeps, and how it counts."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the command line needs the extra `lab`")

from ulpgrad.bench.suite import trial, turns
from ulpgrad.bench.suite.record import Limit, Record, Row, Time
from ulpgrad.bench.suite.turns import Pair
from ulpgrad.errors import KernelError


def pair(number: int, planted: Sequence[str] = ()) -> Pair:
    """The same code twice, the second time with a plant."""
    return Pair(".", run(number), run(number, planted=planted), trial.FACTOR, turns=1)


def run(number: int, factor: float = 1.0, planted: Sequence[str] = ()) -> Record:
    """A run of all ops, whose times hardly differ; those that are planted take a fifth longer."""
    rows = []
    for op in trial.OPS:
        for contender in ("ulpgrad", "numpy"):
            is_planted = contender == "ulpgrad" and op in planted
            times = [factor * (1.2 if is_planted else 1.0) * (1 + 0.002 * ((i + number) % 5)) for i in range(8)]
            rung = None if contender == "numpy" else trial.PLANTED if is_planted else "cpu/native"
            rows.append(Row(op, "float32", 64, "cpu", contender, rung, 1, "measured", chosen=rung is not None,
                            time=Time.of(times, [1] * 8), limit=Limit(1.0, 1.0)))  # fmt: skip
    return Record(
        "ulpgrad bench", "abc", {}, {"numpy": "2"}, 1, f"2026-01-01T00:{number:02}:00+00:00", "then", rows=tuple(rows)
    )


def test_a_plant_waits_for_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    def now() -> float:
        clock[0] += 1.0
        return clock[0]

    def work(x: float, *, more: float) -> float:
        clock[0] += 100.0
        return x + more

    monkeypatch.setattr(trial.time, "perf_counter", now)
    assert trial._slowed(work, 1.2)(1.0, more=2.0) == 3.0
    assert clock[0] == pytest.approx(1.2 * 100, abs=4)


def test_comparisons_are_counted() -> None:
    same = [pair(number) for number in range(5)]
    planted = [pair(10, trial.OPS[::2]), pair(11, trial.OPS[1::2])]
    found = dict(trial.tallies(same, planted))
    both, rows = found["in turns, same code"], len(trial.OPS)
    assert (both.comparisons, both.rows, both.planted, both.found, both.false) == (5, 5 * rows, 0, 0, 0)
    both = found["in turns, planted"]
    assert (both.comparisons, both.planted, both.fine, both.found, both.false) == (2, rows, rows, rows, 0)
    alone = found["at different times, same code"]
    assert (alone.comparisons, alone.rows, alone.planted, alone.false) == (10, 10 * rows, 0, 0)
    alone = found["at different times, planted"]
    assert (alone.comparisons, alone.planted, alone.found, alone.false) == (10, 5 * rows, 5 * rows, 0)
    odd = replace(same[4], after=run(4, planted=["exp"]))
    odd = replace(
        odd, after=replace(odd.after, rows=tuple(replace(r, rung=r.rung and "cpu/native") for r in odd.after.rows))
    )
    assert dict(trial.tallies([*same[:4], odd], []))["in turns, same code"].false == 1


def test_runs_are_kept_and_planted_ones_lie_among_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    status = [0]

    def measured(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        path = Path(command[command.index("--json") + 1])
        made.append(path.stem)
        ops = trial.OPS[int(path.stem[-1]) :: 2] if "--file" in command else ()
        if ops:
            assert f"plant({ops!r})" in Path(command[command.index("--file") + 1]).read_text()
        turns.write(path, pair(len(made), planted=ops))
        return subprocess.CompletedProcess(command, status[0])

    monkeypatch.setattr(trial.subprocess, "run", measured)
    turns.write(tmp_path / "same-1.json", pair(1))
    turns.write(tmp_path / "same-2.json", replace(pair(2), after=replace(run(2), ended=None)))
    trial.measure(tmp_path, 3, 2, 1)
    assert made == ["same-0", "planted-0", "same-2", "planted-1"]
    assert len(trial.runs(tmp_path, "same")) == 3
    trial.measure(tmp_path, 3, 2, 1)
    assert len(made) == 4
    status[0] = 3
    with pytest.raises(
        KernelError, match=r"same-3: the run ended with status 3; see what it says: .* bench against .* matmul,softmax"
    ):
        trial.measure(tmp_path, 4, 2, 1)
