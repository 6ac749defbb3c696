"""Autotuning: what is tried, kept, read again and believed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad.errors import KernelError
from ulpgrad.formats import float8_e5m2, float16
from ulpgrad.kernels import capabilities, gpu, triton_tuned

pytestmark = pytest.mark.skipif(capabilities.missing("triton") is not None, reason="needs Triton")

FORMATS = (float16, float16)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ULPGRAD_CACHE", str(tmp_path))
    triton_tuned.forget()
    yield
    triton_tuned.forget()


def operands(m: int = 16, k: int = 32, n: int = 16) -> tuple[Any, Any]:
    xp = gpu.xp()
    return xp.ones((m, k), np.float16), xp.ones((k, n), np.float16)


def asked(rung: str) -> tuple[Any, Any]:
    """The question that a call asks, and the configuration that it gets."""
    from ulpgrad.kernels.matmul import triton_configs as configs

    question = configs.Question(rung, "half", 16, 16, 32, 1)
    return question, configs.choose(question)


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """A table of two configurations, of which the smaller is chosen by size; and a clock by which the larger is faster."""
    from ulpgrad.kernels import triton_tune
    from ulpgrad.kernels.matmul import triton_configs as configs

    large, small = configs.Config(32, 32, 32, 4, 3), configs.Config(16, 16, 32, 2, 3)
    monkeypatch.setattr(configs, "table", lambda name: (large, small))

    def clock(call: Any, samples: int) -> float:
        with configs.heard():
            call()
        return 1.0 / configs.choose(configs.Question("", "half", 1, 1, 1, 1)).m

    monkeypatch.setattr(triton_tune, "milliseconds", clock)
    return large, small


def test_the_best_is_kept_for_later_calls_and_processes(two: tuple[Any, Any], tmp_path: Path) -> None:
    from ulpgrad.kernels import triton_tune

    large, small = two
    question, before = asked("triton-grouped")
    assert before == small
    tuned = triton_tune.tune("matmul", FORMATS, operands(), rung="cuda/triton-grouped")
    assert (tuned.question, tuned.best, set(tuned.times)) == (question, large, {large, small})
    assert asked("triton-grouped")[1] == large
    assert asked("triton-plain")[1] == small, "another rung's question"
    triton_tuned.forget()  # as another process begins
    assert asked("triton-grouped")[1] == large
    assert [p.suffix for p in (tmp_path / "tuned").iterdir()] == [".json"], "nothing is left of the writing"


def test_answers_of_others_are_kept(two: tuple[Any, Any]) -> None:
    triton_tuned.keep("a", [1])
    file = triton_tuned.path()
    file.write_text(json.dumps({"a": [1], "b": [2]}))  # another process, meanwhile
    triton_tuned.keep("c", [3])
    assert triton_tuned.read(file) == {"a": [1], "b": [2], "c": [3]}


@pytest.mark.parametrize("damage", ["", "[1, 2]", '{"a": "b"}', '{"a": [1.5]}', '{"a": [1'])
def test_a_damaged_file_is_nothing(damage: str) -> None:
    triton_tuned.path().write_text(damage)
    assert triton_tuned.known() == {}


def test_a_configuration_of_another_shape_is_not_believed(two: tuple[Any, Any]) -> None:
    question, _ = asked("triton-grouped")
    triton_tuned.keep(str(question), [1, 2])
    assert asked("triton-grouped")[1] == two[1]


def test_times_are_medians_of_the_device() -> None:
    from ulpgrad.kernels import triton_tune

    calls = []
    assert triton_tune.milliseconds(lambda: calls.append(1), samples=5) >= 0
    assert len(calls) == triton_tune.WARM + 5


def test_what_cannot_be_tuned_says_so() -> None:
    from ulpgrad.kernels import triton_tune

    a, b = operands(1)
    with pytest.raises(KernelError, match="chooses no configuration"):
        triton_tune.tune("matmul", FORMATS, (a, b), rung="cuda/triton-vector")
    narrow = tuple(gpu.xp().zeros(x.shape, np.uint8) for x in (a, b))
    with pytest.raises(KernelError, match="only after they are widened"):
        triton_tune.tune("matmul", (float8_e5m2, float8_e5m2), narrow, rung="cuda/triton-vector")


def test_a_configuration_that_fails_is_told(two: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.errors import TritonError

    from ulpgrad.kernels import triton_tune
    from ulpgrad.kernels.matmul import triton_configs as configs

    def clock(call: Any, samples: int) -> float:
        if configs.choose(configs.Question("", "half", 1, 1, 1, 1)) == two[0]:
            raise TritonError("out of resource: shared memory")
        return 1.0

    monkeypatch.setattr(triton_tune, "milliseconds", clock)
    tuned = triton_tune.tune("matmul", FORMATS, operands(), rung="cuda/triton-grouped")
    assert (tuned.best, list(tuned.failures)) == (two[1], [two[0]])
    assert "failed" in str(tuned)
    assert "shared memory" in str(tuned)
