"""The file that a benchmark run leaves behind: it comes back as it was written, and what is not such a file is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ulpgrad.bench.suite import record, rounds
from ulpgrad.bench.suite.record import Error, Limit, Range, Record, Row, Time
from ulpgrad.errors import DataError

ROW = Row(
    "matmul", "float32", 64, "cpu", "ulpgrad", "cpu/native-avx512", 2, "measured", chosen=True, call="matmul(...)",
    counts="rows", time=Time.of([3e-6, 1e-6, 2e-6]), first=1e-3, flops=2.0 * 64**3, bytes=49152.0,
    limit=Limit(2e11, 5e10), bound="arithmetic", share=0.5, memory=16384, bits=32.0, traffic=49152.0,
    error=Error(1e-7, 2e-7, 0.75, ((0.0, 0.0, 5), (0.0, 0.5, 3))), range=Range(0.0, 0.25),
)  # fmt: skip
RUN = Record(
    "ulpgrad bench matmul", "abc", {"cpu": "x"}, {"numpy": "2"}, 2, "2026-01-01T00:00:00+00:00",
    rows=(ROW, Row("exp", "float32", None, "cpu", "torch", None, 2, "missing", "pip install torch")),
)  # fmt: skip


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    record.write(path, RUN)
    assert record.read(path) == RUN
    data = json.loads(path.read_text())
    assert (data["kind"], data["version"], data["rows"][0]["time"]["median"]) == ("ulpgrad-bench", 2, 2e-6)


def test_a_record_of_the_first_version_is_read(tmp_path: Path) -> None:
    data = {**RUN.as_data(), "version": 1}
    del data["rows"][0]["time"]["sizes"]
    (found, _) = Record.from_data(data).rows
    assert found.time is not None
    assert found.time.rounds == ((3e-6, 1e-6, 2e-6),)


def test_rounds_are_joined() -> None:
    """Samples come together, the highest limits count, and what one round measured only stays."""
    later = replace(ROW, time=Time.of([4e-6, 5e-6]), limit=Limit(4e11, 4e10), memory=None, error=None, range=None)
    (both,) = rounds.joined([ROW], [later])
    assert both.time == Time.of([3e-6, 1e-6, 2e-6, 4e-6, 5e-6], [3, 2])
    assert both.time is not None
    assert both.time.rounds == ((3e-6, 1e-6, 2e-6), (4e-6, 5e-6))
    assert (both.limit, both.memory, both.error, both.range) == (Limit(4e11, 5e10), ROW.memory, ROW.error, ROW.range)
    assert both.share == pytest.approx(2.0 * 64**3 / 4e11 / 3e-6)
    assert rounds.taken([ROW]) == 1
    assert rounds.taken([both]) == 2


def test_who_fails_in_one_round_has_failed() -> None:
    crash = replace(ROW, state="failed", reason="crashed", time=None)
    for earlier, later in ((ROW, crash), (crash, ROW)):
        (both,) = rounds.joined([earlier], [later])
        assert (both.state, both.reason, both.time) == ("failed", "crashed", None)
    fast = replace(ROW, time=Time.of([1e-9] * 5))
    (above,) = rounds.joined([fast], [fast])
    assert above.state == "failed"
    assert "of the measured limit: an error of the benchmark" in above.reason
    other = replace(ROW, contender="numpy", rung=None)
    assert rounds.joined([ROW], [other]) == [ROW, other]


def test_a_file_that_cannot_be_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    record.write(path, RUN)
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.write(path, replace(RUN, rows=(replace(ROW, share=float("nan")),)))
    assert record.read(path) == RUN
    with pytest.raises(DataError, match="there is no folder"):
        record.write(tmp_path / "nowhere" / "run.json", RUN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 3}, r"version 3 of the record; this ulpgrad reads up to 2: update it"),
        ({"version": None}, "version None"),
        ({"kind": "other"}, "not a benchmark record"),
        ({"rows": [{"op": "matmul"}]}, "a row is not as it should be .*format"),
        ({"rows": [{**ROW.as_data(), "time": 3.0}]}, "a row is not as it should be"),
        ({"rows": [{**ROW.as_data(), "state": "lost"}]}, "state 'lost' of matmul: expected one of measured, refused"),
        ({"more": 1}, "fields missing or unknown: more"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**RUN.as_data(), **change}))
    with pytest.raises(DataError, match=message) as caught:
        record.read(path)
    assert str(path) in str(caught.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: No such file"):
        record.read(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text(json.dumps(RUN.as_data())[:-9])
    with pytest.raises(DataError, match="no JSON"):
        record.read(tmp_path / "cut.json")


def test_a_difference_inside_the_noise_is_none() -> None:
    slow, fast = Time.of([9.0, 10.0, 11.0, 12.0, 13.0]), Time.of([7.0, 7.0, 8.0, 9.0, 9.0])
    near = Time.of([8.0, 10.0, 10.0, 11.0, 11.0])
    assert slow.differs(fast)
    assert fast.differs(slow)
    assert not slow.differs(near)
    assert (slow.median, slow.p20, slow.p80) == (11.0, 10.0, 12.0)


def test_the_chosen_rung_is_the_same_contender_in_another_run() -> None:
    assert replace(ROW, rung="cpu/other").key == ROW.key
    assert replace(ROW, rung="cpu/other", chosen=False).key != ROW.key
    assert ROW.key[:5] == ROW.cell
