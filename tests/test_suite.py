"""The suite: what it measures and checks, what it refuses, and that a crash or an interruption costs one row or none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner

from ulpgrad.bench import peak
from ulpgrad.bench.suite import cells, contenders, exact, measure, meter, peers, record, run
from ulpgrad.bench.suite.cells import Cell
from ulpgrad.bench.suite.contenders import Contender, Task
from ulpgrad.bench.suite.process import Died
from ulpgrad.bench.suite.record import Limit, Row, Time
from ulpgrad.bench.suite.run import Settings
from ulpgrad.cli.app import app
from ulpgrad.errors import DataError
from ulpgrad.formats import as_format, float32
from ulpgrad.kernels import registry

SMALL = Cell("exp", "float32", 1000)
OWN_RUNGS = """
import os, signal, time
import numpy as np
from ulpgrad.formats import float32
from ulpgrad.kernels.registry import find, kernel
op = find("exp")

@kernel(op, "cpu/numpy-dies", rank=1, formats=[float32])
def dies(x): os.abort()

@kernel(op, "cpu/numpy-eaten", rank=2, formats=[float32])
def eaten(x): os.kill(os.getpid(), signal.SIGKILL)

@kernel(op, "cpu/numpy-zeros", rank=3, formats=[float32])
def zeros(x): return np.zeros_like(x)

@kernel(op, "cpu/numpy-raises", rank=4, formats=[float32])
def raises(x): raise MemoryError("no room for 8 values")

@kernel(op, "cpu/numpy-sleeps", rank=5, formats=[float32])
def sleeps(x): time.sleep(60)

@kernel(find("log"), "cpu/numpy-top", rank=10_000, formats=[float32])
def top(x): os.abort()

@kernel(op, "cpu/numpy-right", rank=6, formats=[float32])
def right(x): return np.exp(x)
"""


def measured(cell: Cell, *more: Contender, rungs: str = "best") -> list[Row]:
    task = Task(cell, seed=1)
    return measure.cell(task, [*contenders.ours(task, rungs), *more], 1, samples=4)


def test_a_cell_is_measured_and_checked() -> None:
    (row,) = measured(SMALL)
    assert (row.state, row.reason, row.contender, row.chosen) == ("measured", "", "ulpgrad", True)
    assert row.time is not None
    assert len(row.time.samples) == 4
    assert row.time.p20 <= row.time.median <= row.time.p80
    assert row.limit is not None
    assert row.limit.bytes is not None
    assert row.first is not None
    assert row.error is not None
    assert row.share is not None
    assert 0 < row.share <= record.ABOVE
    assert (row.bytes, row.traffic, row.bits) == (8000, 8000, 32)
    assert row.error.ulps is not None
    assert 0 < row.error.ulps < 2
    assert sum(n for _, _, n in row.error.histogram) == 1000
    assert row.error.whole is not None
    assert row.error.relative is not None
    assert row.error.whole > row.error.relative  # operands were rounded, too


@pytest.mark.parametrize("form", ["float8_e4m3fn", "q3.4", "mxfp8_e4m3"])
def test_formats_without_units_of_their_own(form: str) -> None:
    (row,) = measured(Cell("multiply", form, 1024))
    assert row.state == "measured", row.reason
    assert row.error is not None
    assert row.error.whole is not None
    assert 1e-4 < row.error.whole < 0.2
    assert row.traffic == row.bytes == 3 * 1024 * (row.bits or 0) / 8


@pytest.mark.parametrize(
    "form", ["affine_int8", "affine_uint8", "affine(int8, 0.02, 3)", "block16(float6_e3m2fn, even)"]
)
def test_any_number_system_is_named(form: str) -> None:
    """Their arithmetic gives float32, in whose last places the result is right; what operands lose is counted beside it."""
    (cell,) = cells.choose("multiply", form, [1024], "cpu")
    assert cell.format == form
    (row,) = measured(cell)
    assert (row.state, row.reason) == ("measured", "")
    assert row.bits == (6.5 if form.startswith("block") else 8)
    assert row.call == f"multiply({form}[1024], {form}[1024])"
    assert row.error is not None
    assert row.error.ulps is not None
    assert row.error.whole is not None
    assert row.error.ulps < 4
    assert 1e-3 < row.error.whole < 0.1


def test_an_op_without_arithmetic_in_a_format_says_so() -> None:
    (row,) = measured(Cell("quantize", "affine_int8", 64))
    assert (row.state, row.reason) == ("refused", "no function of tensors makes quantize of affine_int8")
    (row,) = measured(Cell("layer_norm", "q7.8", 64))  # whose function has other arguments than the op
    assert (row.state, row.reason[:50]) == ("refused", "layer_norm has no fixed-point arithmetic (q7.8): c")


def test_what_leaves_a_format_is_counted() -> None:
    got, wanted = np.array([np.inf, 0.0, 1.0, 448.0, 0.0]), np.array([1e3, 1e-9, 1.0, 460.0, 0.0])
    found = exact.left(got, wanted, as_format("float8_e4m3fn"))
    assert (found.overflowed, found.underflowed) == (0.4, 0.2)


def test_what_leaves_a_format_is_no_wrong_result() -> None:
    """1024 values near 1 add up to what these formats do not hold; a rung that gives something else is still found."""
    (row,) = measured(Cell("sum", "float8_e4m3fn", 2))
    assert (row.state, row.reason) == ("measured", "")
    assert row.range is not None
    assert (row.range.overflowed, row.range.underflowed) == (1.0, 0.0)
    assert row.error is not None
    assert row.error.relative is None
    (row,) = measured(Cell("softmax", "q7.8", 2))
    assert row.state == "measured"
    assert row.range is not None
    assert row.range.underflowed > 0.5
    assert exact.wrong(np.array([100.0]), np.array([1024.0]), as_format("float8_e4m3fn")) is not None


def test_errors_are_counted_in_units_of_the_last_place() -> None:
    wanted = np.array([1.0, 1.5, 4.0, 0.0])
    got = wanted + np.array([0.0, 2.0**-24, 3 * 2.0**-21, 0.0])
    found = exact.error(got, wanted, None, float32)
    assert found.ulps == 3.0
    assert {(low, high): n for low, high, n in found.histogram if n} == {
        (0.0, 0.0): 2,
        (0.25, 0.5): 1,
        (2.0, 4.0): 1,
    }
    assert exact.error(np.array([np.inf]), np.array([1.0]), None, float32).ulps is None
    assert exact.relative(np.array([np.inf, 3.0]), np.array([np.inf, 2.0])) == 0.5
    assert exact.relative(np.array([np.nan]), np.array([2.0])) is None


def test_wrong_outputs_are_no_measurement() -> None:
    task = Task(SMALL, seed=1)

    def peer(call: Any) -> Contender:
        return Contender("numpy", call, task.arrays, lambda y: (np.asarray(y, np.float64),))

    rows = measured(SMALL, peer(np.zeros_like), peer(lambda x: np.exp(x)[1:]), peer(lambda x: np.exp(x) * np.inf))
    assert [row.state for row in rows] == ["measured", "failed", "failed", "failed"]
    assert "off by 1 of the result's norm" in rows[1].reason
    assert "gives shape (999,) instead of (1000,)" in rows[2].reason
    assert "not finite where the exact result is" in rows[3].reason
    assert rows[1].error is rows[1].time is None
    assert (
        exact.wrong(np.array([1, 2]), np.array([1, 3]), as_format("int32"))
        == "1 of 2 values are not what they should be"
    )


def test_who_fails_in_its_turn_is_alone() -> None:
    task, calls = Task(SMALL, seed=1), iter(range(20))

    def tired(x: Any) -> Any:
        if next(calls) > 10:
            raise ValueError("enough")
        return np.exp(x)

    peer = Contender("numpy", tired, task.arrays, lambda y: (np.asarray(y, np.float64),))
    assert [(row.state, row.reason) for row in measured(SMALL, peer)] == [
        ("measured", ""),
        ("failed", "ValueError: enough"),
    ]


def test_what_is_above_the_limit_is_an_error_of_the_benchmark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peak, "bandwidth", lambda size, threads=None, sweep="copy": 1e6)
    monkeypatch.setattr(peak, "flops", lambda form, threads=None, dots=False: 1e15)
    monkeypatch.setattr(peak, "forget", lambda: None)
    (row,) = measured(Cell("add", "float32", 4096))
    assert row.state == "failed"
    assert "of the measured limit: an error of the benchmark" in row.reason
    assert row.time is not None


def test_memory_of_a_call_is_its_peak() -> None:
    size = 1 << 22

    def call() -> Any:
        a, b = np.ones(size // 8), np.ones(size // 8)
        return (a + b).sum()

    for lying in range(8):  # however memory lies, huge pages at its edges are nobody's
        beside = [np.ones(size // 8 + 40_000 * i) for i in range(lying)]
        del beside[::2]
        assert 3 * size <= (meter.peak_bytes(call, counted=True) or 0) < 3.2 * size
    kept = np.ones(8)
    assert (meter.peak_bytes(lambda: kept.sum(), counted=True) or 0) < size / 4


def test_energy_is_counted_where_the_machine_reports_it(tmp_path: Path) -> None:
    assert meter.Energy(tmp_path).joules((), ()) is None
    for i, top in enumerate((1000, 262143)):
        folder = tmp_path / f"intel-rapl:{i}"
        folder.mkdir()
        (folder / "max_energy_range_uj").write_text(f"{top}\n")
        (folder / "energy_uj").write_text("900\n")
    found = meter.Energy(tmp_path)
    before = found.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("99\n")  # began anew
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("1900\n")
    assert found.joules(before, found.read()) == pytest.approx((200 + 1000) / 1e6)


def test_every_op_has_cells() -> None:
    assert {cell.op for cell in cells.choose("", "", [], "cpu")} == set(registry.ops())
    assert [c.size for c in cells.choose("exp", "float32,bfloat16", [8, 9], "cpu")] == [8, 9, 8, 9]
    assert {c.format for c in cells.choose("exp", "all", [8], "cpu")} >= {"float16", "bfloat16", "float8_e5m2"}


def test_sizes_beyond_the_memory_are_not_tried() -> None:
    why = cells.too_large(Cell("matmul", "float32", 1_000_000))
    assert why is not None
    assert "TiB are needed" in why
    assert cells.too_large(Cell("matmul", "float32", 600)) is None
    assert 4 * 3 * 1000**2 * 8 < cells.needed(Cell("matmul", "float32", 1000)) < 20 * 3 * 1000**2 * 8


MISTAKES = [
    ("matmull", "there is no op 'matmull'; did you mean matmul"),
    ("exp --formats flot32", "there is no format 'flot32'; did you mean float32"),
    ("exp --formats afine_int8", "there is no format 'afine_int8'; did you mean affine_int8"),
    ("exp --formats q60.60", "a word of 121 bits"),
    ("exp --formats block0(q1.2,floor)", "Block: size=0"),
    ("exp --formats affine(int8,x,0)", "affine(int8,x,0): could not convert string to float"),
    ("exp --peers tensorflow", "there is no peer 'tensorflow'; did you mean torch, numpy"),
    ("exp --sizes 12,x", "--sizes 12,x: expected whole numbers of at least 1"),
    ("exp --rungs cpu/nativ", "there is no rung 'cpu/nativ' of these ops; did you mean cpu/native"),
    ("exp --device tpu", "unknown device 'tpu'"),
    ("exp --threads 5000", "this process may use"),
    ("exp --json /nowhere/x.json", "there is no folder /nowhere"),
    ("exp --html /nowhere/x.html", "cannot write into /nowhere"),
    ("network --html /nowhere/x.html", "cannot write into /nowhere"),
    ("network flaot32", "there is no number system 'flaot32'; did you mean float32"),
    ("peers --json /nowhere/x.json", "cannot write into /nowhere"),
    ("exp --file absent.py", "absent.py: expected a Python file that registers rungs"),
]


@pytest.mark.parametrize(("arguments", "message"), MISTAKES)
def test_mistakes_are_told_before_anything_is_measured(arguments: str, message: str) -> None:
    done = CliRunner().invoke(app, ["bench", *arguments.split()])
    assert done.exit_code == 1
    assert message in done.output


def test_the_command_keeps_shows_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, page = tmp_path / "run.json", tmp_path / "run.html"
    call = ["bench", "exp", "--sizes", "64,1000", "--peers", "numpy,cupy", "--threads", "1", "--quick",
            "--json", str(kept), "--html", str(page)]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["ulpgrad", *call])
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.output
    whole = record.read(kept)
    assert whole.ended is not None
    assert whole.command.startswith("ulpgrad bench exp --sizes 64,1000")
    assert [(r.size, r.contender) for r in whole.rows] == [
        (n, c) for n in (64, 1000) for c in ("ulpgrad", "numpy", "cupy")
    ]
    assert all(r.state == "measured" for r in whole.rows if r.contender != "cupy")
    assert whole.settings["cores"] == sorted(os.sched_getaffinity(0))[:1]
    if peers.skipped("cupy"):
        assert "cupy is left out: cupy not installed: pip install" in done.output
        assert {r.state for r in whole.rows if r.contender == "cupy"} == {"missing"}
    assert "exp" in page.read_text()
    cut = replace(whole, ended=None, rows=whole.rows[:3])  # as Ctrl-C leaves it
    record.write(kept, cut)
    again = CliRunner().invoke(app, call)
    assert "Going on after 1 cells" in again.output
    found = record.read(kept)
    assert found.rows[:3] == whole.rows[:3]
    assert len(found.rows) == 6
    assert found.settings["seed"] == whole.settings["seed"]


def test_the_same_cells_through_pytest_benchmark(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark", reason="the benchmarks need the extra `lab`")
    kept = tmp_path / "kept.json"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "bench/bench_ops.py", "--ops", "exp", "--sizes", "64", "--formats", "float32,q7.8",
         "--rungs", "best", "--peers", "numpy", "-p", "no:xdist", "-p", "no:cacheprovider", f"--benchmark-json={kept}"],
        capture_output=True, text=True, cwd=Path(__file__).resolve().parent.parent, timeout=120,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")},  # which switches benchmarks off
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    found = json.loads(kept.read_text())["benchmarks"]
    assert sorted((b["group"], b["name"]) for b in found) == [
        ("exp float32 64", "test_cell[exp float32 64-numpy]"),
        ("exp float32 64", "test_cell[exp float32 64-ulpgrad]"),
        ("exp q7.8 64", "test_cell[exp q7.8 64-ulpgrad]"),
    ]
    assert all(0 <= b["extra_info"]["relative_error"] < 1e-2 for b in found)


def test_another_command_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    settings = Settings("exp", threads=1)
    begun = run.start(settings, "ulpgrad bench exp", path)
    row = Row("exp", "float32", 1, "cpu", "ulpgrad", None, 1, "failed", "by hand")
    record.write(path, replace(begun, rows=(row,)))
    assert run.start(settings, "ulpgrad bench exp", path).rows == (row,)
    assert run.start(settings, "ulpgrad bench log", path).rows == ()
    path.write_text("{}")
    assert run.start(settings, "ulpgrad bench exp", path).rows == ()
    with pytest.raises(DataError, match="there is no folder"):
        run.start(settings, "ulpgrad bench exp", tmp_path / "nowhere" / "run.json")


class Scripted:
    """A worker that needs no time: NumPy brings it down in its first round, ours gives a sample of each round's number."""

    started: ClassVar[list[Scripted]] = []

    def __init__(self, *_: Any) -> None:
        self.asked: list[tuple[str, int, list[str]]] = []
        self.started.append(self)

    def ask(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        self.asked.append((request["op"], request["number"], request["without"]))
        if "numpy" not in request["without"]:
            raise Died("numpy", "crashed: Aborted")
        time = Time.of([1.0 + request["number"]] * 2)
        row = Row(request["op"], request["format"], request["size"], "cpu", "ulpgrad", "cpu/native", 1, "measured", time=time,
                  limit=Limit(1.0, 1.0))  # fmt: skip
        return [row.as_data()]

    def close(self) -> None:
        pass


def test_each_round_has_a_process_of_its_own_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "Worker", Scripted)
    monkeypatch.setattr(Scripted, "started", [])
    settings = Settings("exp,log", sizes=(64,), peers="numpy", threads=1, rounds=3)
    path = tmp_path / "run.json"

    def stop(name: str, rows: list[Row]) -> None:
        if name == "log float32 64 (2 of 3)":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.finish(run.start(settings, "ulpgrad bench exp", path), settings, path, stop)
    assert [row.time.sizes for row in record.read(path).rows if row.time] == [(2, 2), (2,)]
    whole = run.finish(run.start(settings, "ulpgrad bench exp", path), settings, path)
    every = [worker.asked for worker in Scripted.started]
    assert [[asked[:2] for asked in worker] for worker in every if worker] == [
        [("exp", 0), ("exp", 0), ("log", 0), ("log", 0)],  # again without NumPy
        [("exp", 1)],
        [("log", 1)],
        [("exp", 2), ("log", 2)],
    ]
    assert {row.reason for row in whole.rows if row.contender == "numpy"} == {"crashed: Aborted"}
    assert all(without == ["numpy"] for worker in every[1:] for _, _, without in worker), "it is not tried again"
    times = [row.time for row in whole.rows if row.contender == "ulpgrad"]
    assert times == [Time.of([1.0, 1.0, 2.0, 2.0, 3.0, 3.0], [2, 2, 2])] * 2
    assert whole.ended is not None


def test_what_takes_long_is_measured_in_few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "Worker", Scripted)
    monkeypatch.setattr(Scripted, "started", [])
    settings = Settings("exp", sizes=(64,), peers="none", threads=1, rounds=5)
    monkeypatch.setattr(run, "LONG", 1e9)
    run.finish(run.start(settings, "ulpgrad bench exp"), settings)
    assert sum(len(worker.asked) for worker in Scripted.started) == 5 + 1
    monkeypatch.setattr(run, "LONG", 0.5)
    monkeypatch.setattr(Scripted, "started", [])
    (row, _) = run.finish(run.start(settings, "ulpgrad bench exp"), settings).rows
    assert row.time is not None
    assert len(row.time.rounds) == run.OF_LONG


def test_who_brings_the_worker_down_is_a_row_and_the_rest_goes_on(tmp_path: Path) -> None:
    own = tmp_path / "own_rungs.py"
    own.write_text(OWN_RUNGS)
    kept = tmp_path / "run.json"
    names = [f"cpu/numpy-{name}" for name in ("dies", "eaten", "zeros", "raises", "sleeps", "right")]
    done = subprocess.run(
        [sys.executable, "-m", "ulpgrad.cli", "bench", "exp,log", "--sizes", "64", "--peers", "numpy", "--threads", "1",
         "--quick", "--rungs", ",".join([*names, "cpu/numpy-top"]), "--file", str(own), "--limit", "8", "--json", str(kept)],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    found = record.read(kept).rows
    rows = {row.rung: row for row in found if row.op == "exp" and row.rung}
    assert set(rows) == set(names)
    assert {r.state for r in found if r.contender == "numpy"} == {"measured"}
    assert {r.reason for r in found if r.op == "log" and r.contender == "ulpgrad"} == {"crashed: Aborted"}
    told = {name.removeprefix("cpu/numpy-"): (rows[name].state, rows[name].reason) for name in names}
    assert told["right"] == ("measured", "")
    assert told["dies"] == ("failed", "crashed: Aborted")
    assert told["eaten"] == ("failed", "killed by the system, as it does where memory runs out")
    assert told["raises"] == ("failed", "MemoryError: no room for 8 values")
    assert told["sleeps"] == ("failed", "no end after 8 s; --limit gives it longer")
    assert "off by 1 of the result's norm" in told["zeros"][1]
    assert "crashed: Aborted" in done.stdout
