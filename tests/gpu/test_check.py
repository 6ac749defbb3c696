"""What `make gpu-check` does on a device, done on the emulated one: each row's result is held against float64, and recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ulpgrad.kernels import gpu

pytest.importorskip("rich", reason="the table needs the extra `lab`")
if gpu.mode() != "emulated":
    pytest.skip("on a device this is `make gpu-check` itself", allow_module_level=True)

from ulpgrad.bench.gpu import check, events

pytestmark = pytest.mark.filterwarnings("ignore::ulpgrad.errors.HostFallbackWarning")


def test_rows_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "SAMPLES", 3)
    out = tmp_path / "gpu.json"
    status = check.run(out, "", 600)
    record = json.loads(out.read_text())
    assert record["failed"] == []
    assert status == 0
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
    assert check.run(out, "matmul", 600) == 1
    record = json.loads(out.read_text())
    assert "WrongResult" in record["failed"][0]["error"]
    assert [row["work"] for row in record["rows"]] == ["matmul float32 16³"]
