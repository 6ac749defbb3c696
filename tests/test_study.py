"""The digits study, end to end and small: figures, a report that needs nothing else, and runs that are not made twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, of the extra `lab`")
pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.bench import ledger, studies
from ulpgrad.bench.chart import Line, line_chart
from ulpgrad.bench.lab import runs
from ulpgrad.bench.studies.digits import training
from ulpgrad.cli.app import app
from ulpgrad.errors import ArgumentError, DataError


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the study has run for two epochs of one seed."""
    folder = tmp_path_factory.mktemp("study") / "reports"
    done = CliRunner().invoke(app, ["study", "--epochs", "2", "--seeds", "1", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    assert f"Report: {folder / 'digits.html'}" in done.output
    assert all(p.label in done.output for p in training.PRECISIONS.values())
    return folder


def test_report_says_all(out: Path) -> None:
    """That it needs no other file is tested for every study, in test_studies.py."""
    text = (out / "digits.html").read_text()
    words = re.sub("<[^>]*>", " ", text)
    for part in ("What to see", "Loss curves", "Command", "Machine", "Versions", "numpy", "bfloat16", "MLP", "CNN"):
        assert part in words
    assert text.count("<svg") >= 4
    assert "nan" not in text.lower().split()


def test_figures_are_numbers(out: Path) -> None:
    data = json.loads((out / "digits.json").read_text())
    assert len(data["runs"]) == len(training.MODELS) * len(training.PRECISIONS)
    assert len(data["summary"]) == len(data["runs"])
    rows = {(r["model"], r["precision"]): r for r in data["runs"]}
    for row in rows.values():
        assert 0 <= row["test_error"] <= 1
        assert row["step_seconds"] > 0
    for model in training.MODELS:
        single, double = rows[model, "float32"]["bytes"], rows[model, "float64"]["bytes"]
        assert double["parameters"] == 2 * single["parameters"] == 2 * single["gradients"] == single["state"]
        assert rows[model, "bfloat16"]["bytes"]["activations"] < single["activations"]
        assert rows[model, "float64"]["final_loss"] == pytest.approx(rows[model, "float32"]["final_loss"], rel=1e-3)


def test_a_second_call_trains_nothing_again(out: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (out / "digits-runs").iterdir()}
    arguments = ["study", "--epochs", "2", "--seeds", "1", "--models", "mlp", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    assert "from an earlier call" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in (out / "digits-runs").iterdir()} == before


def test_same_seed_same_bits() -> None:
    first, again = (training.train("mlp", "float16-scaled", 3, 1, 64) for _ in range(2))
    other = training.train("mlp", "float16-scaled", 4, 1, 64)
    assert first["losses"] == again["losses"] != other["losses"]


def test_the_engine_learns() -> None:
    """Twelve epochs are enough to be far beyond chance; the whole study is held to 97 % and 98 % by its own figures."""
    assert training.train("mlp", "float32", 0, 12, 64)["test_error"] < 0.06


def test_nothing_half_written_when_the_disk_is_full(tmp_path: Path) -> None:
    """Finished runs are small and fit; the report does not."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "import sklearn.datasets, ulpgrad.cli.app, numba\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "sys.argv = 'ulpgrad study --epochs 1 --seeds 1 --models mlp --formats float32'.split()\n"
        "from ulpgrad.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1, done.stderr
    assert "digits.html: not written, the file is too large (no half file is left)" in done.stderr
    assert [p.name for p in (tmp_path / "reports").iterdir()] == ["digits-runs"]
    assert [p.suffix for p in (tmp_path / "reports" / "digits-runs").iterdir()] == [".json"]


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    study = studies.load("digits")
    options = study.options({"models": "mlp", "formats": "float32", "seeds": 1, "epochs": 1})
    runs.finish("digits", study, options, tmp_path, lambda text, done=False: None)
    (path,) = tmp_path.iterdir()
    path.write_text(path.read_text()[:50])
    with pytest.raises(DataError, match=r"not a finished run .*--fresh"):
        runs.finish("digits", study, options, tmp_path, lambda text, done=False: None)


def test_options() -> None:
    study = studies.load("digits")
    assert study.options({}, quick=True).seeds == 1
    chosen = study.options({"seeds": 3, "formats": "float16, float64"}, quick=True)
    assert (chosen.seeds, chosen.rows) == (3, ("mlp-float64", "mlp-float16", "cnn-float64", "cnn-float16"))
    assert study.options({"rows": "cnn-float32"}).rows == ("cnn-float32",)
    with pytest.raises(ArgumentError, match="'rnn' given, expected some of mlp, cnn"):
        study.options({"models": "rnn"})
    with pytest.raises(ArgumentError, match="'mnist' given, this study takes digits"):
        study.options({"data": "mnist"})
    with pytest.raises(ArgumentError, match="no row is left"):
        study.options({"rows": "cnn-float32", "models": "mlp"})


def test_the_folder_of_reports_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    done = CliRunner().invoke(app, ["study", "--quick", "--out", str(tmp_path / "taken" / "reports")])
    assert done.exit_code == 1
    assert "choose another with --out" in done.stderr


def test_ledger_counts_each_piece_of_memory_once() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = ug.optim.Adam(model.parameters())
    x, y = ug.ones((5, 4)), ug.zeros(5, dtype=ug.int64)
    loss = ug.cross_entropy(model(x), y)
    kept = ledger.activations(loss, model)
    # x, the activation (saved by relu and by the layer after it), logits, their log-sum-exp, targets
    assert kept == 4 * (5 * 4 + 5 * 8 + 5 * 3 + 5) + 8 * 5
    loss.backward()
    optimizer.step()
    counted = ledger.count(model, optimizer, kept)
    values = 4 * 8 + 8 + 8 * 3 + 3
    assert (counted.parameters, counted.gradients, counted.state) == (4 * values, 4 * values, 8 * values)


def test_shifts_move_by_one_pixel_at_most() -> None:
    x = np.zeros((200, 1, 8, 8), np.float32)
    x[:, 0, 4, 3] = 1
    moved = training.shifted(ug.random.Generator(0))(x)
    found = {(int(i), int(j)) for _, _, i, j in np.argwhere(moved == 1)}
    assert found == {(i, j) for i in (3, 4, 5) for j in (2, 3, 4)}
    assert moved.sum() == 200


def test_charts_leave_out_what_a_logarithm_does_not_have() -> None:
    assert "Nothing above zero" in line_chart([Line("zero", [0.0, 0.0], 0)], "x", "y")
    assert "<circle" in line_chart([Line("one", [0.5], 1)], "x", "y")
    drawn = line_chart([Line("two", [1.0, 0.0, 0.01], 1)], "x", "y")
    assert len(drawn.split('points="')[1].split('"')[0].split()) == 2
