"""The table of number systems beside their peers: what is checked before it is timed, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich", reason="the table needs the extra `lab`")

from ulpgrad.bench import peak
from ulpgrad.bench.numbers import __main__ as command
from ulpgrad.bench.numbers.table import Contender, Target, Work, WrongResult, check, in_turns, measure
from ulpgrad.kernels import native


def work(peer: Contender, target: Target | None = None) -> Work:
    ours = Contender("ulpgrad", lambda: np.arange(4), 4)
    return Work("tiny", ours, [peer], "values/s", 1.0, lambda: 1e12, target, threads=1)


def test_another_result_is_no_peer() -> None:
    with pytest.raises(WrongResult, match="tiny: 1 of 4 values differ from those of wrong"):
        check(work(Contender("wrong", lambda: np.array([0, 1, 2, 4]), 4)))
    with pytest.raises(WrongResult, match="4 of 4"):
        check(work(Contender("short", lambda: np.arange(3), 3)))
    check(work(Contender("smaller", lambda: np.arange(2), 2, expected=lambda: np.arange(2))))
    check(work(Contender("other", lambda: np.zeros(4), 4, values=None)))


def test_targets_are_judged() -> None:
    slow = Contender("slow", lambda: sum(range(20_000)), 4)
    assert measure(work(slow, Target(1, "slow")), 1, quick=True).met is True
    assert measure(work(slow, Target(0.5, "limit")), 1, quick=True).met is False
    assert measure(work(slow, Target(1, "absent")), 1, quick=True).met is None
    assert measure(work(slow), 1, quick=True).best == "slow"


def test_all_take_turns() -> None:
    order: list[int] = []
    times = in_turns([lambda: order.append(0), lambda: order.append(1)], 3)
    assert [len(t) for t in times] == [3, 3]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "numbers.json"
    command.main(["--quick", "--threads", "1", "--only", "Q7.8 +", "--json", str(file)])
    (row,) = json.loads(file.read_text())["rows"]
    assert row["work"] == "Q7.8 + Q7.8, 1 M values"
    assert row["rate"] > 0
    assert "NumPy int16 add" in row["peers"]
    assert "Number systems beside their peers" in capsys.readouterr().out


@pytest.mark.skipif(native.missing() is not None, reason="limits of integer units are measured in C++")
def test_integer_units_do_at_least_as_much_in_bytes() -> None:
    words, octets = peak.dots(16, 1), peak.dots(8, 1)
    assert words is not None
    assert octets is not None
    assert octets > 0.8 * words > 0
    with pytest.raises(ValueError, match="bits = 8 or 16"):
        native.module().peak_dot(1, 1, 12)
