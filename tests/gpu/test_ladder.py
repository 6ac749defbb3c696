"""`ulpgrad ladder --device cuda`: every rung of a GPU on one problem, with its error; sources of CUDA C++ and Triton."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
pytest.importorskip("rich", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner

from ulpgrad.cli.app import app
from ulpgrad.kernels import gpu


def call(*arguments: str) -> Any:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, arguments)


def test_every_rung_is_timed_and_right(tmp_path: Path) -> None:
    out, page = tmp_path / "climb.json", tmp_path / "climb.html"
    written = ("--json", str(out), "--html", str(page))
    done = call("ladder", "softmax", "--device", "cuda", "--size", "2", "--samples", "2", *written)
    assert done.exit_code == 0, done.output
    if gpu.mode():
        assert "the GPU is emulated: results are a GPU's, times are not" in done.stderr
        assert "times are not" in page.read_text()
    data = json.loads(out.read_text())
    assert data["device"] == "cuda"
    ran = [rung for rung in data["rungs"] if rung["refusal"] is None]
    assert {"cuda/triton-row", "cuda/triton-online"} <= {rung["rung"] for rung in ran}
    for rung in ran:
        assert rung["seconds"] > 0
        assert rung["error"] < 1e-6, f"{rung['rung']} is off by {rung['error']}"
    assert "Triton, one idea at a time" in done.output


def test_sources() -> None:
    shown = call("ladder", "matmul", "--device", "cuda", "--source", "tiles")
    assert shown.exit_code == 0, shown.output
    assert "csrc/cuda/matmul_tiles.cu" in shown.output
    assert "__shared__" in shown.output
    changed = call("ladder", "matmul", "--device", "cuda", "--diff", "registers")
    assert "what changed from cuda/cuda-tiles" in changed.output
    assert "@triton.jit" in call("ladder", "softmax", "--device", "cuda", "--source", "cuda/triton-row").output


def test_only_a_device_by_its_kind() -> None:
    done = call("ladder", "matmul", "--device", "cuda:0")
    assert done.exit_code == 1
    assert "expected cpu or cuda" in done.stderr
