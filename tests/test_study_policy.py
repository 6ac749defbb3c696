"""Policies in words, and the study that trains under them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, of the extra `lab`")
pytest.importorskip("typer", reason="the command line needs the extra `lab`")
pytest.importorskip("matplotlib", reason="the plots need the extra `lab`")
from typer.testing import CliRunner

import ulpgrad as ug
from ulpgrad.bench import studies
from ulpgrad.bench.lab import trial
from ulpgrad.bench.lab.given import given
from ulpgrad.bench.studies import policy as module
from ulpgrad.cli.app import app
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Q, as_format
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.policy import DynamicFixed, Policy, Scaled, autocast

WORDS = "weight=q3.12 activation=q3.12 gradient=q3.12 update=q3.12 rounding.update=stochastic accumulate=int64"


def test_words_become_a_policy() -> None:
    found = given(WORDS)
    made = found.make(3)
    assert isinstance(made, Policy)
    assert (found.name, found.text) == ("", WORDS)
    chosen = made.settings
    assert {chosen.weight, chosen.bias, chosen.activation, chosen.gradient, chosen.update} == {Q(3, 12)}
    assert chosen.rounding["update"] == "stochastic"
    assert chosen.rounding["weight"] == "nearest_even"
    assert chosen.accumulate is not None
    assert chosen.accumulate.given == "int64"
    assert found.make(3) is not made


def test_calls_and_names() -> None:
    found = given(" of mine :  weight=dynamic(10,12)\n activation=scaled(float8_e4m3fn, 16) bias=none everywhere=false")
    made = found.make(0)
    assert isinstance(made, Policy)
    assert found.name == "of mine"
    assert isinstance(made.settings.weight, DynamicFixed)
    assert made.settings.weight.update_bits == 12
    assert isinstance(made.settings.activation, Scaled)
    assert made.settings.activation.history == 16
    assert made.settings.bias is None
    sums = given("accumulate=chunks(e6m9,64)").make(0)
    assert isinstance(sums, Policy)
    assert sums.settings.accumulate is not None
    assert sums.settings.accumulate.given == ug.Accumulate(as_format("e6m9"), 64)
    integer = given("weight=q3.4 activation=q(3, 4) accumulate=integer(24,8,wrap)").make(0)
    assert isinstance(integer, Policy)
    assert integer.settings.accumulate is not None
    assert integer.settings.accumulate.given == Accumulator(24, 8, "wrap")


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("wieght=q3.12", ArgumentError, "unknown role 'wieght': expected some of weight, "),
        ("rounding.weights=up", ArgumentError, r"unknown role 'rounding\.weights'"),
        ("weight.update=q3.12", ArgumentError, r"unknown role 'weight\.update'"),
        ("weight=q3.x", FormatError, r"unknown format 'q3\.x'"),
        ("weight=q3.12 weight=q3.4", ArgumentError, "weight is given twice"),
        ("rounding=up rounding.weight=down", ArgumentError, r"rounding\.weight is given twice"),
        ("weight q3.12", ArgumentError, "expected role=format"),
        ("mine:", ArgumentError, "nothing is given"),
        ("weight=dynamic(1)", ArgumentError, "DynamicFixed: bits=1"),
        ("weight=dynamic(1,2,3,4,5)", ArgumentError, r"dynamic\(1,2,3,4,5\)"),
        ("weight=q3.12 everywhere=perhaps", ArgumentError, "everywhere=perhaps: expected true or false"),
        ("weight=e4m3 rounding=sideways", ArgumentError, "sideways"),
        ("accumulate=int64", FormatError, "adds integers"),
    ],
)
def test_what_cannot_be_is_said(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        given(text)


def test_rows_of_ones_own_stand_beside_float32() -> None:
    study = studies.under("policy", ["hybrid", WORDS, f"mine: {WORDS} bias=none", "mxfp4"])
    labels = [row.label for row in study.rows.values()]
    assert labels == ["float32", "hybrid, delayed scaling", "policy 2", "mine", "MXFP4 (e2m1)"]
    with pytest.raises(ArgumentError, match=r"'hybird': expected roles, such as weight=q7\.8, or one of float32, "):
        studies.under("policy", ["hybird"])
    with pytest.raises(ArgumentError, match="two are called 'mine'"):
        studies.under("policy", ["mine: weight=q3.4", "mine: weight=q3.5"])
    with pytest.raises(ArgumentError, match="the study 'gupta' has policies of its own"):
        studies.under("gupta", ["hybrid"])


def test_another_text_is_another_run() -> None:
    assert given("mine: weight=q3.4").key != given("mine: weight=q3.5").key
    assert given("weight=q3.4 bias=none").key == given("weight=q3.4   bias=none").key


def test_every_preset_makes_a_policy() -> None:
    made = {name: row.setting(0) for name, row in module.STUDY.rows.items()}
    assert made.pop("float32") is None
    assert all(isinstance(policy, Policy | autocast) for policy in made.values())


def test_the_command(tmp_path: Path) -> None:
    arguments = ["study", "policy", "--epochs", "1", "--seeds", "1", "--out", str(tmp_path), "--policy", "hybrid"]
    done = CliRunner().invoke(app, [*arguments, "--policy", f"sixteen: {WORDS}"])
    assert done.exit_code == 0, done.output
    data = json.loads((tmp_path / "policy.json").read_text())
    assert [row["label"] for row in data["summary"]] == ["float32", "hybrid, delayed scaling", "sixteen"]
    assert WORDS in (tmp_path / "policy.html").read_text()
    wrong = CliRunner().invoke(app, [*arguments, "--policy", "weight=int8"])
    assert wrong.exit_code == 1


@pytest.fixture
def _one_thread() -> Iterator[None]:
    """As studies run: a network this small gains nothing from more."""
    before = ug.get_num_threads()
    ug.set_num_threads(1)
    yield
    ug.set_num_threads(before)


@pytest.mark.usefixtures("_one_thread")
def test_a_trial_of_a_policy_object() -> None:
    plain, same = trial(None, epochs=1), trial(Policy(weight="float32"), epochs=1)
    assert plain["step_losses"] == same["step_losses"]
    narrow = trial(Policy(weight="q3.4"), epochs=1)
    assert narrow["step_losses"] != plain["step_losses"]
    assert narrow["test_error"] < 0.9
