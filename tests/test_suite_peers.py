"""What other libraries take part in cells with: right where they are installed, and held to a distribution where they draw."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest

from ulpgrad.bench.suite import drawn, exact, functions, gradients, peers, prepared, recurrent, updates
from ulpgrad.bench.suite.cells import Cell
from ulpgrad.bench.suite.contenders import Contender, Task
from ulpgrad.bench.suite.measure import reason
from ulpgrad.errors import KernelError
from ulpgrad.kernels import registry

TABLES = (functions.NUMPY, functions.TORCH, functions.JAX, functions.ONNX, peers.TORCH, peers.JAX, drawn.NUMPY)
SIZES = {"elementwise": 500, "random": 5000, "optimizer": 300, "recurrent": 3, "conv": 1, "pool": 1, "adaptive_pool": 1,
         "integer_pool": 1}  # fmt: skip
PREPARED = {"numpy": drawn.NUMPY, "torch": peers.TORCH, "jax": peers.JAX}


def task(op: str, form: str = "float32") -> Task:
    return Task(Cell(op, form, SIZES.get(registry.find(op).family, 16)), seed=3)


def results(name: str, task: Task) -> Any:
    (one,) = peers.of(task, [name], 1)
    assert isinstance(one, Contender), one
    return one.values(one.call(*one.operands()))


def test_tables_name_only_ops() -> None:
    known = set(registry.ops())
    for table in TABLES:
        assert set(table) <= known
    assert {forward for forward, _ in gradients.BACKWARD.values()} <= known


def test_torch_has_every_gradient_every_optimizer_and_every_layer_that_it_trains() -> None:
    wanted = {name for name, op in registry.ops().items()
              if (name.endswith("_gradient") and op.family != "integer_gradients")  # which it has of floats alone
              or op.family in ("optimizer", "random", "recurrent")}  # fmt: skip
    assert wanted <= {*functions.TORCH, *peers.TORCH}
    assert set(recurrent.TORCH) | set(updates.TORCH) <= set(peers.TORCH)


@pytest.mark.parametrize("library", PREPARED)
def test_prepared_calls_are_right(library: str) -> None:
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed: the extra `peers` has it")
    for op in PREPARED[library]:
        given = task(op)
        got = results(library, given)
        assert got or op in drawn.CHECKS
        for g, wanted, form in zip(got, given.expected, given.formats, strict=False):
            assert g is None or exact.wrong(g, wanted, form) is None, (op, exact.wrong(g, wanted, form))


@pytest.mark.parametrize("op", sorted(functions.NUMPY))
def test_what_one_writes_in_numpy_is_right(op: str) -> None:
    given = task(op, "int8" if op.startswith("integer") else "float32")
    for g, wanted, form in zip(results("numpy", given), given.expected, given.formats, strict=False):
        assert g is None or exact.wrong(g, wanted, form) is None, exact.wrong(g, wanted, form)


@pytest.mark.parametrize("op", drawn.CHECKS)
def test_our_own_numbers_pass_what_others_are_held_to(op: str) -> None:
    given = task(op)
    drawn.CHECKS[op](given, given.expected[0])


WRONG = [
    ("random_bits", lambda x: x / 2, "the mean of uniform numbers is 0.2"),
    ("random_uniform", lambda x: x - 0.5, "expected 0 to 1"),
    ("random_uniform", lambda x: x**2, "the mean of uniform numbers is 0.33"),
    ("random_normal", lambda x: x + 0.5, "the mean of normal numbers is 0."),
    ("random_normal", lambda x: x * 0.5, "the mean of squares of normal numbers is 0.2"),
    ("random_permutation", np.sort, "5000 numbers are no random permutation"),
    ("random_permutation", lambda x: np.minimum(x, 4000), "5000 numbers are no random permutation"),
    ("dropout", lambda x: x * 1.1, "what dropout keeps is not x"),
    ("dropout", lambda x: np.where(np.arange(x.size) % 2, x, 0), "the mean of what dropout keeps is 0.4"),
]


@pytest.mark.parametrize(("op", "spoilt", "message"), WRONG)
def test_numbers_that_are_drawn_wrong_are_found(op: str, spoilt: Any, message: str) -> None:
    given = task(op)
    with pytest.raises(KernelError, match=message):
        drawn.CHECKS[op](given, spoilt(given.expected[0]))


def test_a_peer_gives_what_it_has_of_the_results() -> None:
    given = task("max_pool2d")
    ready = prepared.Prepared(lambda give: prepared.given(given.problem, give), lambda x: (None, x), check=None)
    one = peers._contender("numpy", ready, lambda a, f: a, np.asarray)
    first, second = one.values(one.call(*one.operands()))
    assert first is None
    assert second is not None
    assert np.array_equal(second, given.problem.arrays[0])


def test_a_library_without_the_format_says_so() -> None:
    assert "NumPy has no float8_e5m2" in str(peers.of(task("softmax", "float8_e5m2"), ["numpy"], 1)[0])
    assert "NumPy has no bfloat16" in str(peers.of(task("random_uniform", "bfloat16"), ["numpy"], 1)[0])
    assert "NumPy has no function" in str(peers.of(task("adam_step"), ["numpy"], 1)[0])


def test_a_reason_is_one_line() -> None:
    assert reason(KernelError("two\n  lines")) == "two lines"
