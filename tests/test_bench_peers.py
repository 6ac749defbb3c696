"""The table of peers and the sweeps: what is checked before it is timed, how it is judged, and what is shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug

pytest.importorskip("rich", reason="the table needs the extra `lab`")

from ulpgrad.bench import peak
from ulpgrad.bench.peers import page, products, recorded, steps, sweeps, table
from ulpgrad.bench.peers.work import (
    Contender,
    Outcome,
    Slack,
    Target,
    Verdict,
    Work,
    WrongResult,
    check,
    in_turns,
    judge,
    measure,
)
from ulpgrad.errors import ArgumentError, DataError
from ulpgrad.kernels import native

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner

from ulpgrad.cli.app import app


def work(peer: Contender, *targets: Target) -> Work:
    ours = Contender("ulpgrad", lambda: np.arange(4), 4)
    return Work("tiny", ours, [peer], "values/s", 1.0, lambda: 1e12, targets, threads=1)


def test_another_result_is_no_peer() -> None:
    with pytest.raises(WrongResult, match="tiny: 1 of 4 values differ from those of wrong"):
        check(work(Contender("wrong", lambda: np.array([0, 1, 2, 4]), 4)))
    with pytest.raises(WrongResult, match="4 of 4"):
        check(work(Contender("short", lambda: np.arange(3), 3)))
    check(work(Contender("smaller", lambda: np.arange(2), 2, expected=lambda: np.arange(2))))
    check(work(Contender("other", lambda: np.zeros(4), 4, values=None)))


def test_errors_are_held_against_float64() -> None:
    def rough(error: float) -> Work:
        ours = Contender("ulpgrad", lambda: np.array([3.0, 4.0]), 2)
        peer = Contender("peer", lambda: np.array([3.0, 4.0 + error]), 2)
        return Work("rough", ours, [peer], "values/s", 1.0, exact=lambda: np.array([3.0, 4.0]), within=0.1)

    assert check(rough(0.25)) == {"ulpgrad": 0.0, "peer": 0.05}
    with pytest.raises(WrongResult, match=r"rough: peer is off by 0.2 of the result's norm; 0.1 is allowed"):
        check(rough(1.0))
    with pytest.raises(WrongResult, match="is off by nan"):
        check(rough(float("nan")))


def test_targets_are_judged() -> None:
    slow = Contender("slow", lambda: sum(range(20_000)), 4)

    def only(target: Target) -> Verdict:
        return measure(work(slow, target), 1, 3).verdicts[0]

    assert only(Target(1, "slow")).text == "met"
    assert only(Target(0.5, "limit")).text == "missed"
    assert only(Target(1, "absent")).text == ""
    assert measure(work(slow), 1, 3).best == "slow"


def test_a_target_beyond_the_limit_is_out_of_reach() -> None:
    peers, times = {"torch": 200.0}, {"ulpgrad": 1.0, "torch": 1.0}
    beyond = judge(Target(2, "torch"), 220.0, peers, 235.0, times)
    assert (beyond.text, page.verdict(beyond)) == ("out of reach", "out of reach: the limit allows 1.18x")
    assert judge(Target(1.1, "torch"), 210.0, peers, 235.0, times).text == "missed"
    assert judge(Target(1.1, "torch"), 221.0, peers, 235.0, times).text == "met"
    assert judge(Target(2, "torch"), 220.0, peers, None, times).text == "missed"
    late = {"ulpgrad": 0.14, "numpy": 0.1}
    assert judge(Slack(0.05, "numpy"), 7.0, {"numpy": 10.0}, None, late).text == "met"
    assert judge(Slack(0.03, "numpy"), 7.0, {"numpy": 10.0}, None, late).text == "missed"


def test_all_take_turns() -> None:
    order: list[int] = []
    times = in_turns([lambda: order.append(0), lambda: order.append(1)], 3)
    assert [len(t) for t in times] == [3, 3]


def test_every_row_has_a_name_of_its_own_and_can_be_chosen() -> None:
    assert table.chosen("FLOAT32 matmul 1024", list(table.WORKS)) == ["matmul float32, 1024³"]
    with pytest.raises(ArgumentError, match="no row has all the words of 'abacus'"):
        table.chosen("abacus", list(table.WORKS))


def test_the_definitions_that_errors_are_held_against() -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((2, 3, 6, 5)), rng.standard_normal((4, 3, 3, 2))
    y = products.convolved(x, w, 1, 2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    assert y.shape == (2, 4, 3, 3)
    assert np.isclose(y[1, 2, 2, 1], (padded[1, :, 4:7, 2:4] * w[2]).sum())
    q, k, v, g = (rng.standard_normal((1, 2, 5, 3)) for _ in range(4))
    step = np.zeros_like(q)
    step[0, 1, 2, 0] = 1e-6
    slope = (g * (products.attended(q + step, k, v) - products.attended(q - step, k, v))).sum() / 2e-6
    assert np.isclose(products.query_gradient(q, k, v, g)[0, 1, 2, 0], slope, rtol=1e-6)


@pytest.mark.parametrize("make", [steps.mlp, steps.cnn, steps.transformer])
def test_steps_learn(make: Any) -> None:
    step = make(ug)
    losses = [float(step()) for _ in range(4)]
    assert losses[-1] < losses[0]


def test_peers_command(tmp_path: Path) -> None:
    json_file, html = tmp_path / "peers.json", tmp_path / "peers.html"
    done = CliRunner().invoke(app, ["bench", "peers", "Q7.8 +", "--quick", "--threads", "1", "--json", str(json_file),
                                    "--html", str(html)])  # fmt: skip
    assert done.exit_code == 0, done.output
    (row,) = json.loads(json_file.read_text())["rows"]
    assert row["work"] == "Q7.8 + Q7.8, 1 M values"
    assert row["rate"] > 0
    assert "NumPy int16 add" in row["peers"]
    assert "Beside the fastest peer" in done.output
    assert "Q7.8 + Q7.8" in html.read_text()
    assert CliRunner().invoke(app, ["bench", "peers", "--device", "cuda"]).exit_code == 1


def test_sweep_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    squares = sweeps.SWEEPS["matmul float32"]
    monkeypatch.setitem(sweeps.SWEEPS, "matmul float32", replace(squares, sizes=(8, 37)))
    others = sweeps.SWEEPS["matmul float32, other shapes"]
    monkeypatch.setitem(sweeps.SWEEPS, "matmul float32, other shapes", replace(others, sizes=("64 x 256 x 10",)))
    json_file, html = tmp_path / "sweep.json", tmp_path / "sweep.html"
    done = CliRunner().invoke(app, ["bench", "sweep", "matmul float32", "--json", str(json_file), "--html", str(html)])
    assert done.exit_code == 0, done.output
    found = json.loads(json_file.read_text())["sweeps"]
    assert [row["work"] for row in found["matmul float32"]] == ["8", "37"]
    assert all(row["rate"] > 0 and row["errors"]["ulpgrad"] < 1e-6 for row in found["matmul float32"])
    assert "n of n x n times n x n" in html.read_text()


def test_sweep_leaves_out_who_takes_minutes() -> None:
    many, few = (Contender("slow", lambda: sum(range(20_000)), amount) for amount in (1e12, 0.5))
    outcome = measure(work(few), 1, 3)
    hopeless = replace(outcome, rate=100.0, peers={"slow": 1.0})
    for before, peers in (
        ([], [many]),
        ([hopeless], []),
        ([replace(hopeless, rate=10.0)], [many]),
        ([hopeless, replace(hopeless, peers={})], []),
    ):
        assert sweeps.bearable(work(many), before).peers == peers
    assert sweeps.bearable(work(few), [hopeless]).peers == [few]  # soon done


@pytest.mark.skipif(native.missing() is not None, reason="limits of integer units are measured in C++")
def test_integer_units_do_at_least_as_much_in_bytes() -> None:
    words, octets = peak.dots(16, 1), peak.dots(8, 1)
    assert words is not None
    assert octets is not None
    assert octets > 0.4 * words > 0  # as many at least, were the machine quiet
    with pytest.raises(ValueError, match="bits = 8 or 16"):
        peak.dots(12)


def test_tables_of_documents_come_from_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Contender("slow", lambda: sum(range(20_000)), 4)
    outcome = measure(work(slow, Target(1, "slow"), Target(0.5, "limit")), 1, 3, {"ulpgrad": 0.25, "slow": 0.5})
    assert Outcome.from_data(json.loads(json.dumps(outcome.as_data()))) == outcome
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    (tmp_path / "peers-cpu.json").write_text(json.dumps({"rows": [outcome.as_data()]}))
    text = "before\n<!-- recorded: peers abacus|TINY -->\nold\n<!-- end -->\n<!-- recorded: errors tiny -->\n<!-- end -->\n"
    made = recorded.filled(text)
    assert made.startswith("before\n<!-- recorded: peers abacus|TINY -->\n\n| work |")
    assert "old" not in made
    assert ">= 1x slow" in made
    assert "| tiny | 0.25 | 0.5 | slow 0.5 |" in made
    assert recorded.filled(made) == made
    with pytest.raises(DataError, match="no row with the words 'abacus'"):
        recorded.filled(text.replace("|TINY", ""))
    far = {
        "rows": [outcome.as_data()],
        "machine": {"cpu": "Abacus 9", "cores": 3, "caches": {"L1": "1K"}},
        "instruction_sets": {"used": "beads", "extensions": ["wires"]},
        "commit": "abc",
    }
    (tmp_path / "peers-far.json").write_text(json.dumps(far))
    elsewhere = recorded.filled("<!-- recorded: elsewhere far TINY -->\n<!-- end -->\n")
    assert "| tiny | 0.25 | 0.5 | slow 0.5 |" in elsewhere
    assert "Abacus 9, 3 cores, L1 1K; kernels for beads, wires; commit abc." in elsewhere
    with pytest.raises(
        DataError, match="expected one of peers, errors, elsewhere, ladder, roofline, rung, code, behind"
    ):
        recorded.filled(text.replace("peers abacus", "pears abacus"))
    with pytest.raises(DataError, match=r"ladder-x\.json is not recorded"):
        recorded.filled("<!-- recorded: ladder x -->\n<!-- end -->")


def test_documents_are_as_recorded() -> None:
    """After a new record: `ulpgrad bench table`."""
    for path in recorded.documents(Path(__file__).resolve().parent.parent):
        assert recorded.filled(path.read_text()) == path.read_text(), path.name
