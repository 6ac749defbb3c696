"""Two versions in turns: the interval keeps its promise, a crash is a row, a stopped run goes on, both packages are found."""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner

from ulpgrad.bench.suite import compared, paired, turns, version
from ulpgrad.bench.suite.cells import Cell
from ulpgrad.bench.suite.compare import in_turns
from ulpgrad.bench.suite.process import Died
from ulpgrad.bench.suite.record import Limit, Record, Row, Time
from ulpgrad.bench.suite.run import Settings
from ulpgrad.bench.suite.turns import Pair
from ulpgrad.bench.suite.version import Version
from ulpgrad.cli.app import app
from ulpgrad.errors import DataError

EACH = 3


def drawn(seed: int, rows: int, rounds: int, factor: float = 1.0, noise: float = 0.02) -> Pair:
    """Rows of two versions: each process is off by `noise`; each turn of the machine is up to three times as slow, for both."""
    rng = np.random.default_rng(seed)
    moods = rng.uniform(1, 3, (rows, rounds, turns.TURNS, 1))
    records = []
    for own in (1.0, factor):
        of_process = np.exp(noise * rng.normal(size=(rows, rounds, 1, 1)))
        times = own * moods * of_process * (1 + 0.01 * rng.exponential(size=(rows, rounds, turns.TURNS, EACH)))
        records.append(Record("", None, {}, {}, 1, "2026-01-01T00:00:00+00:00", "2026-01-01T00:01:00+00:00", rows=tuple(
            Row(f"op{i}", "float32", 64, "cpu", "ulpgrad", "cpu/native", 1, "measured", chosen=True,
                time=Time.of(times[i].ravel().tolist(), [turns.TURNS * EACH] * rounds), limit=Limit(1.0, 1.0))
            for i in range(rows)
        )))  # fmt: skip
    return Pair("HEAD", *records)


@pytest.mark.parametrize(
    ("freedom", "chance", "expected"),
    [(1, 0.05, 12.7062), (2, 0.01, 9.92484), (5, 0.01, 4.03214), (7, 1e-4, 7.88458), (23, 1e-6, 6.59265)],
)
def test_quantiles_of_student(freedom: int, chance: float, expected: float) -> None:
    assert paired.student(freedom, chance) == pytest.approx(expected, rel=1e-5)


def test_moods_of_the_machine_cancel_and_a_fifth_is_found() -> None:
    pair = drawn(1, 30, 10, 1.2)
    found = in_turns(pair)
    assert len(found.of("slower")) == 30
    calm = compared.in_short(in_turns(drawn(1, 30, 10, noise=0.005)))
    assert "In 30 of them a change by a factor of 1.1 could not have been missed." in calm[1]
    assert len(calm) == 2
    assert all(c.ratio == pytest.approx(1.2, rel=0.05) and c.needed < 1.1 for c in found.changes)
    assert len(in_turns(replace(pair, before=pair.after, after=pair.before)).of("faster")) == 30


def test_false_alarms_are_as_rare_as_promised() -> None:
    """Even where processes differ so much that the least change that counts is well inside what chance does."""
    alarms = sum(any(c.verdict != "none" for c in in_turns(drawn(s, 30, 8, noise=0.1)).changes) for s in range(100))
    assert alarms <= 4, "one comparison in a hundred may accuse somebody"


def test_what_is_too_noisy_is_said(tmp_path: Path) -> None:
    kept = tmp_path / "pair.json"
    turns.write(kept, drawn(3, 2, 8, noise=0.2))
    page = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["bench", "compare", str(kept), "--html", str(page), "--fail"])
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "2 rows compared: 0 slower, 0 faster" in words
    assert "Too noisy for that, with what a change would have needed: op" in words
    assert "Too noisy" in page.read_text()
    turns.write(kept, drawn(3, 2, 8, 1.2))
    assert CliRunner().invoke(app, ["bench", "compare", str(kept), "--fail"]).exit_code == 1


def test_a_report_is_of_one_version(tmp_path: Path) -> None:
    turns.write(tmp_path / "pair.json", drawn(3, 2, 8))
    done = CliRunner().invoke(app, ["bench", "report", str(tmp_path / "pair.json")])
    assert done.exit_code == 1
    assert "two versions in turns: `ulpgrad bench compare" in done.output


def test_a_version_that_was_slow_enough_for_one_sample_a_turn() -> None:
    old = Time.of([1.0] * turns.TURNS * EACH)
    new = Time.of([1.5] * turns.TURNS)
    assert paired.differences(old, new, turns.TURNS) == pytest.approx([math.log(1.5)])
    assert paired.interval([0.1], 1) == (0.1, math.inf)


def test_one_process_far_off_is_not_believed() -> None:
    rounds = [0.18 + 0.01 * (i % 3) for i in range(20)]
    change, reach = paired.interval([*rounds, 0.9], 10)
    assert change == pytest.approx(0.19, abs=0.01)
    assert reach < 0.02


class Scripted:
    """A worker of one version that needs no time; it dies where it is told to."""

    log: ClassVar[list[str]] = []
    dying: ClassVar[str] = ""

    def __init__(self, *_: Any, package: Path | None = None) -> None:
        self.name = "after" if package is None else "before"

    def steps(self, request: dict[str, Any]) -> Generator[None, None, list[dict[str, Any]]]:
        self.log.append(f"{request['op']} {request['number']}")
        for _ in range(request["turns"]):
            yield
            self.log.append(self.name)
        if self.dying == self.name:
            raise Died("ulpgrad cpu/native", "crashed: Aborted")
        taken = Time.of([1.0 + (self.name == "after" and request["op"] == "log")] * request["turns"])
        row = Row(request["op"], request["format"], request["size"], "cpu", "ulpgrad", "cpu/native", 1, "measured", chosen=True,
                  time=taken, limit=Limit(1.0, 1.0))  # fmt: skip
        return [row.as_data()]

    def close(self) -> None:
        pass


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> type[Scripted]:
    monkeypatch.setattr(turns, "Worker", Scripted)
    monkeypatch.setattr(Scripted, "log", [])
    monkeypatch.setattr(Scripted, "dying", "")
    return Scripted


BEFORE = Version("HEAD", "abc", Path())


def test_samples_are_taken_in_turns(scripted: type[Scripted]) -> None:
    turns.in_turns((Scripted(package=Path()), Scripted()), Cell("exp", "float32", 64), Settings(), 1, 0)  # type: ignore[arg-type]
    order = [name for name in scripted.log if name in ("before", "after")]
    assert len(order) == 2 * turns.TURNS
    first, second = order[:2]
    assert order == [first, second, second, first] * (turns.TURNS // 2)


def test_a_run_goes_on_and_ends_when_it_knows_enough(tmp_path: Path, scripted: type[Scripted]) -> None:
    settings = Settings("exp,log", sizes=(64,), peers="none", threads=1, rounds=24)
    path = tmp_path / "pair.json"

    def begun() -> Pair:
        return turns.start(settings, BEFORE, 1.1, "ulpgrad bench against HEAD", path)

    def stop(name: str, rows: list[Row]) -> None:
        if name.startswith("log float32 64 (3 "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        turns.finish(begun(), settings, BEFORE, path, stop)
    found = turns.finish(begun(), settings, BEFORE, path)
    asked = [line for line in scripted.log if line not in ("before", "after")]
    assert asked == [f"{op} {number}" for number in range(paired.FEWEST) for op in ("exp", "log") for _ in range(2)]
    assert {c.after.op: c.verdict for c in in_turns(found).changes} == {"exp": "none", "log": "slower"}
    assert (found.before.commit, found.after.commit) == ("abc", begun().after.commit)
    assert begun().after.rows == (), "what has come to its end is not gone on with"
    path.write_text(json.dumps({**found.as_data(), "version": 2}))
    with pytest.raises(DataError, match="reads up to 1: update it"):
        turns.read(path)


def test_a_version_that_crashes_is_a_row(scripted: type[Scripted]) -> None:
    scripted.dying = "before"
    settings = Settings("exp", sizes=(64,), peers="none", threads=1)
    made = turns.finish(turns.start(settings, BEFORE, 1.1, ""), settings, BEFORE)
    assert [(r.state, r.reason) for r in made.before.rows] == [("failed", "ulpgrad cpu/native: crashed: Aborted")]
    assert [r.state for r in made.after.rows] == ["measured"]
    with pytest.raises(DataError, match=r"no row was measured in both versions: ulpgrad cpu/native: crashed"):
        in_turns(made)
    assert (
        turns.in_turns((Scripted(), Scripted()), Cell("matmul", "float32", 10**6), settings, 1, 0)[0][0].state
        == "too large"
    )  # type: ignore[arg-type]


def test_the_kernels_of_the_other_version_are_measured(tmp_path: Path) -> None:
    """A checkout in which exp came to zeros, and one's own of a rung that is only now."""
    root = version.ROOT
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "kernels").symlink_to(root / "kernels")
    (tree / "engine").mkdir()
    for entry in (root / "engine").iterdir():
        if entry.name not in ("__pycache__", "__init__.py"):
            (tree / "engine" / entry.name).symlink_to(entry)
    broken = "\nfrom ulpgrad.kernels.registry import find, kernel\nfrom ulpgrad.formats import float32 as _f\n" \
             "kernel(find('exp'), 'cpu/zeros', rank=10**6, formats=[_f])(lambda x: x * 0)\n"  # fmt: skip
    (tree / "engine" / "__init__.py").write_text((root / "engine" / "__init__.py").read_text() + broken)
    settings = Settings("exp,negative", sizes=(64,), peers="none", threads=1, rounds=1)
    with version.found(str(tree)) as other:
        pair = turns.finish(turns.start(settings, other, 1.1, ""), settings, other)
    assert [(r.op, r.state) for r in pair.before.rows] == [("exp", "failed"), ("negative", "measured")]
    assert "off by 1 of the result's norm" in pair.before.rows[0].reason
    assert [r.state for r in pair.after.rows] == ["measured"] * 2
    found = in_turns(pair)
    assert [(row.op, what) for row, what in found.others] == [("exp", "measured now; before: failed")]
    assert [(c.after.op, c.verdict) for c in found.changes] == [("negative", "none")], "one round says nothing"
    times = [rows[1].time for rows in (pair.before.rows, pair.after.rows)]
    assert all(t and len(t.samples) == turns.TURNS * EACH for t in times)


def test_what_is_no_version(tmp_path: Path) -> None:
    for arguments, said in (
        (["no-such-revision"], "neither a folder with a checkout of ulpgrad"),
        ([str(tmp_path)], "neither a folder with a checkout of ulpgrad"),
        (["HEAD", "--find", "1"], "expected a factor above 1"),
        (["HEAD", "expp"], "there is no op 'expp'"),
    ):
        done = CliRunner().invoke(app, ["bench", "against", *arguments])
        assert done.exit_code == 1
        assert said in " ".join(done.output.split())


def test_a_revision_is_checked_out_once_with_our_extension_where_its_sources_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "root"
    (root / "engine").mkdir(parents=True)
    (root / "engine" / "__init__.py").write_text("")
    (root / "setup.py").write_text("raise SystemExit('no compiler')\n")

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@b", *arguments], capture_output=True, text=True,
            check=True,
        ).stdout.strip()  # fmt: skip

    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    first = git("rev-parse", "--short=10", "HEAD")
    monkeypatch.setattr(version, "HERE", root / "engine")
    monkeypatch.setattr(version.native, "missing", lambda: None)
    (root / "engine" / "_native.so").write_text("ours")
    tree = version.checked_out(root, first, lambda text: None)
    assert (tree / "engine" / "_native.so").read_text() == "ours"
    (tree / "engine" / "_native.so").unlink()
    (root / "setup.py").write_text("changed")
    told: list[str] = []
    with pytest.raises(version.KernelError, match=r"do not build in .*: no compiler"):
        version.checked_out(root, first, told.append)
    assert told == [f"building the C++ kernels of {first}"]
