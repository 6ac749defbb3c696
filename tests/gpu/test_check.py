"""What `make gpu-check` does on a device, done on the emulated one: each row's result is held against float64, and recorded."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ulpgrad.kernels import gpu

pytest.importorskip("rich", reason="the table needs the extra `lab`")
if gpu.mode() != "emulated":
    pytest.skip("on a device this is `make gpu-check` itself", allow_module_level=True)

from ulpgrad.bench.gpu import check, events, layers, lost, rows
from ulpgrad.bench.gpu.networks import NETWORKS, Layer, Network
from ulpgrad.bench.gpu.record import LostDevice, Record
from ulpgrad.bench.gpu.turns import at_first
from ulpgrad.bench.peers.work import Outcome, Work

pytestmark = pytest.mark.filterwarnings("ignore::ulpgrad.errors.HostFallbackWarning")


def test_rows_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SAMPLES", 3)
    out = tmp_path / "gpu.json"
    found = Record(out, check.facts())
    check.run(found, [*check.verified(), *check.unverified([])], "", 600)
    check.limits(found)
    record = json.loads(out.read_text())
    assert record["failed"] == []
    assert found.wrong == 0
    assert record["ceilings"]["copy_bytes_per_second"] > 0
    assert len(record["rows"]) > 20
    for row in record["rows"]:
        assert row["rate"] > 0
        assert row["errors"] or row["unit"] == "calls/ms", f"{row['work']} is not checked"
    assert record["gpu"]["cuda"].startswith("ULPGRAD_CUDA=emulated")


def test_a_row_that_is_wrong_is_told_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ulpgrad.bench.gpu import rows

    def works() -> object:
        yield lambda: rows.product("float16", 16)
        yield lambda: rows.product("float32", 16)

    monkeypatch.setattr(rows, "works", works)
    monkeypatch.setitem(rows.WITHIN, "float16", 0.0)
    monkeypatch.setattr(events, "SAMPLES", 3)
    out = tmp_path / "gpu.json"
    found = Record(out, {})
    check.run(found, check.verified(), "matmul", 600)
    assert found.wrong == 1
    record = json.loads(out.read_text())
    assert "WrongResult" in record["failed"][0]["error"]
    assert [row["work"] for row in record["rows"]] == ["matmul float32 16³"]


def test_a_peer_that_refuses_costs_the_row_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> Callable[[], object]:
        raise RuntimeError("no kernel for this card")

    work = rows.product("float32", 16)
    others = [
        replace(work.ours, name="refuses", call=at_first(refuses)),
        replace(work.ours, name="runs", call=at_first(lambda: rows.product("float32", 16).ours.call)),
    ]
    monkeypatch.setattr(events, "SAMPLES", 3)
    out = tmp_path / "gpu.json"
    found = Record(out, {})
    check.run(found, [lambda: replace(work, peers=others)], "", 600)
    assert found.wrong == 0
    record = json.loads(out.read_text())
    assert list(record["rows"][0]["peers"]) == ["runs"]
    assert record["failed"] == [{"work": f"{work.name}, refuses", "error": "RuntimeError: no kernel for this card"}]


def test_a_peer_or_a_limit_that_is_wrong_costs_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses() -> float:
        raise RuntimeError("no such unit")

    work = rows.product("float32", 16)
    values = work.ours.values
    assert values is not None
    others = [
        replace(
            work.ours, name="wrong", call=rows.product("float32", 16).ours.call, values=lambda out: 2 * values(out)
        ),
        replace(work.ours, name="right", call=rows.product("float32", 16).ours.call),
    ]
    monkeypatch.setattr(events, "SAMPLES", 3)
    out = tmp_path / "gpu.json"
    found = Record(out, {})
    check.run(found, [lambda: replace(work, peers=others, limit=refuses)], "", 600)
    record = json.loads(out.read_text())
    (row,) = record["rows"]
    assert list(row["peers"]) == ["right"]
    assert list(row["errors"]) == ["ulpgrad", "right"]
    assert row["limit"] is None
    (wrong, limit) = record["failed"]
    assert wrong["work"] == f"{work.name}, wrong"
    assert "is off by 1" in wrong["error"]
    assert limit == {"work": f"{work.name}, its limit", "error": "RuntimeError: no such unit"}
    assert record["wrong"] == found.wrong == 2


def test_a_row_that_loses_the_device_is_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> Work:
        raise RuntimeError("an illegal address")

    out = tmp_path / "gpu.json"
    found = Record(out, {})
    makes = [check.launch_cost, fails, check.launch_cost]
    check.run(found, makes, "", 600)
    assert len(found.data["rows"]) == 2, "the device still answers"
    monkeypatch.setattr(lost, "error", lambda: "an illegal address was accessed")
    with pytest.raises(LostDevice, match="since a row: an illegal address"):
        check.run(found, makes, "", 600)
    record = json.loads(out.read_text())
    assert record["begun"] == 2
    assert len(record["rows"]) == 3
    monkeypatch.undo()
    check.run(found, makes, "", 600, first=2)
    assert json.loads(out.read_text())["begun"] == 3


def test_what_a_library_refuses_does_not_end_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> float:
        raise RuntimeError("no such unit")

    def works() -> Iterator[Callable[[], Work | Outcome]]:
        yield check.launch_cost
        refuses()

    monkeypatch.setattr(check.ceilings, "product_rate", refuses)
    out = tmp_path / "gpu.json"
    found = Record(out, {})
    check.run(found, works(), "", 600)
    check.limits(found)
    record = json.loads(out.read_text())
    assert len(record["rows"]) == 1
    assert record["ceilings"]["copy_bytes_per_second"] > 0
    assert set(record["ceilings"]["product_per_second"].values()) == {None}
    assert found.wrong == 5
    assert all("no such unit" in failed["error"] for failed in record["failed"])


def test_rows_of_a_rung_that_may_wait_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come from another process, which is ended when its time is over, and what it left is kept."""
    out = tmp_path / "gpu.json"
    found = Record(out, {})
    check.apart(found, "gluon", 300, "--only", "64 causal")
    assert found.wrong == 0
    record = json.loads(out.read_text())
    assert record["failed"] == []
    assert record["rows"]
    for row in record["rows"]:
        assert row["work"].endswith("by cuda/triton-gluon")
        assert set(row["errors"]) == {"ulpgrad", "cuda/triton-tuned"}
    monkeypatch.setattr(check, "STARTING", 0.0)
    check.apart(found, "gluon", 0.01)
    assert found.wrong == 1
    assert json.loads(out.read_text())["failed"] == [{"work": "gluon", "error": "stopped after 0.01 s"}]


# A layer of each kind: the first, a stride, one tap with a stride, no padding, a transposed one.
SMALL = Network("a small network", 2, {
    Layer(3, 9, 8, 7, 2, 3, is_first=True): 1, Layer(16, 8, 8, 3, 2, 1): 2, Layer(8, 8, 16, 1, 2): 1, Layer(8, 8, 8, 3): 3,
    Layer(8, 8, 16, 2, 2, is_turned=True): 1,
})  # fmt: skip


@pytest.mark.parametrize("form", layers.FORMS)
def test_layers_of_a_network_are_right_and_add_up(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SAMPLES", 3)
    monkeypatch.setattr(layers, "FORMS", (form,))
    monkeypatch.setitem(NETWORKS, SMALL.name, SMALL)
    out = tmp_path / "gpu.json"
    layers.run(Record(out, {}), [SMALL.name], 600)
    record = json.loads(out.read_text())
    assert record["failed"] == []
    (entry,) = record["networks"]
    assert [line["times"] for line in entry["layers"]] == [1, 2, 1, 3, 1]
    for line in entry["layers"]:
        assert list(line["passes"]) == [p for p in layers.PASSES if not (line["is_first"] and p == "input gradient")]
        for row in line["passes"].values():
            assert 0 < row["errors"]["ulpgrad"] < layers.WITHIN[form]
            assert row["notes"][0].startswith("ulpgrad: cuda/"), row["notes"]
    assert list(entry["whole"]) == list(layers.WHOLE)
    seconds = {over: 1 / row["rate"] for over, row in entry["whole"].items()}
    assert seconds["forward and backward"] == pytest.approx(seconds["forward"] + seconds["backward"])


def test_layers_by_a_rung_that_waits_to_be_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SAMPLES", 3)
    monkeypatch.setitem(NETWORKS, SMALL.name, SMALL)
    found = Record(tmp_path / "gpu.json", {})
    check.run(found, layers.unverified([SMALL.name]), "", 600)
    assert found.data["failed"] == []
    assert len(found.data["rows"]) == 14  # forwards, both gradients, of the first that of its filters
    for row in found.data["rows"]:
        assert row["work"].endswith("by cuda/cuda-warpgroup")
        assert "ulpgrad: cuda/cuda-warpgroup" in row["notes"]
        assert list(row["peers"]) == ["cuda/cuda-matrix"]


@pytest.mark.parametrize(
    ("failed", "left"),
    [
        ([check.WEIGHTS], {"conv2d", "conv2d_input_gradient"}),
        ([check.WARPGROUP, "gluon"], {"conv2d_weight_gradient"}),
        ([check.WARPGROUP, check.WEIGHTS], set()),
    ],
)
def test_rows_of_a_rung_whose_tests_failed_are_left_out(
    failed: list[str], left: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NETWORKS, SMALL.name, SMALL)
    works = [work for work in check.unverified([SMALL.name], failed) if isinstance(work, functools.partial)]
    assert {layers.op_of(work.args[2], work.args[3]).name for work in works if work.func is layers.row} == left
    assert any(work.func is rows.convolution for work in works) == ("conv2d" in left)


def test_a_network_that_is_cut_off_has_no_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, SMALL.name, SMALL)
    out = tmp_path / "gpu.json"
    layers.run(Record(out, {}), [SMALL.name], 0)
    record = json.loads(out.read_text())
    assert [entry["whole"] for entry in record["networks"]] == [{}, {}]
    assert "14 of 14 rows are missing, so there is no sum; 0 s were over" in record["failed"][0]["error"]
