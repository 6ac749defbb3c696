"""One network in every number system: what is counted, what errors mean, and the page of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, of the extra `lab`")
pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner

from ulpgrad.bench.studies import tradeoff
from ulpgrad.bench.studies.tradeoff import costs
from ulpgrad.bench.studies.tradeoff.schemes import SCHEMES
from ulpgrad.bench.suite import network, record
from ulpgrad.bench.suite.record import Row
from ulpgrad.cli.app import app
from ulpgrad.errors import ArgumentError, DataError

NAMES = ("float32", "bfloat16", "e4m3", "fp8-hybrid")


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], Row]:
    return {(row.format, row.op): row for row in network.measure(NAMES, batch_size=32, samples=4)}


def test_errors_follow_the_digits(rows: dict[tuple[str, str], Row]) -> None:
    def off(name: str, op: str) -> float:
        error = rows[SCHEMES[name].label, op].error
        assert error is not None
        assert error.relative is not None
        return error.relative

    for op in (network.FORWARD, network.STEP):
        assert off("float32", op) < 1e-6
        assert 1e-3 < off("bfloat16", op) < 0.1
        assert off("fp8-hybrid", op) > off("bfloat16", op)
    assert off("e4m3", network.STEP) > off("fp8-hybrid", network.STEP), "without a scale, gradients vanish"


def test_weights_stay_where_they_are() -> None:
    """Every step of a measurement is the same step."""
    subject = network.Subject.of("float32", 16, 0)
    before = [
        p.numpy().copy() if not p.requires_grad else p.detach().numpy().copy() for p in subject.model.parameters()
    ]
    losses = [subject.step() for _ in range(3)]
    assert losses[0] == losses[1] == losses[2]
    for p, old in zip(subject.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.detach().numpy(), old)


def test_bytes_are_those_of_the_study(rows: dict[tuple[str, str], Row]) -> None:
    work = tradeoff.work("digits", 32)
    for name in NAMES:
        step = rows[SCHEMES[name].label, network.STEP]
        found = costs.figures(SCHEMES[name], work)
        assert step.memory == int(found["bytes"])
        assert step.traffic == found["traffic"]
        assert step.flops == work.operations
        assert step.time is not None
        assert len(step.time.samples) == 4
    assert network.bit_operations(SCHEMES["bfloat16"], work) == 256 * work.products
    assert costs.moved(SCHEMES["float32"], work) == 4 * (4 * work.weights + 3 * work.activations + 3 * work.errors
                                                         + 2 * work.weights)  # fmt: skip


def test_relative_error() -> None:
    assert network.relative([np.array([3.0, 4.0])], [np.array([3.0, 4.0])]) == 0
    assert network.relative([np.array([0.0]), np.array([4.0])], [np.array([3.0]), np.array([4.0])]) == pytest.approx(
        0.6
    )
    assert network.relative([np.array([np.inf])], [np.array([1.0])]) is None


def test_command_writes_page_and_record(tmp_path: Path) -> None:
    learnt = tmp_path / "tradeoff.json"
    learnt.write_text(json.dumps({"study": "tradeoff", "summary": [
        {"label": "float32", "test_error": {"mean": 0.02}}, {"label": "bfloat16", "test_error": {"mean": 0.03}}]}))  # fmt: skip
    html, data, text = tmp_path / "n.html", tmp_path / "n.json", tmp_path / "n.md"
    done = CliRunner().invoke(
        app, ["bench", "network", "float32,bfloat16", "--batch-size", "16", "--samples", "4", "--outcome", str(learnt),
              "--html", str(html), "--json", str(data), "--markdown", str(text)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "3.00%" in done.output
    assert html.read_text().count("<figure") == 3 + 3
    assert "http" not in html.read_text()
    assert [row.op for row in record.read(data).rows] == [network.FORWARD, network.STEP] * 2
    assert "| bfloat16 |" in text.read_text()


def test_bad_input() -> None:
    with pytest.raises(ArgumentError, match=r"no number system 'int9'; did you mean int.*There are float32"):
        network.measure(["int9"])
    with pytest.raises(DataError, match="expected the JSON file of `ulpgrad study tradeoff`"):
        network.outcomes(Path(__file__))
