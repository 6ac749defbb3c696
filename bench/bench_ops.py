"""The cells of `ulpgrad bench` through pytest-benchmark: any op, format, size, rung and peer, with its groups, storage,
comparison and histograms.

    pytest bench/bench_ops.py --ops matmul,softmax --formats float32,bfloat16 --peers torch --rungs best

A cell is a group. The call stands in each record (`extra_info`), its error against float64 as well; an output that is not
right fails.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from ulpgrad.bench.suite import cells, contenders, exact, peers
from ulpgrad.bench.suite.cells import Cell
from ulpgrad.bench.suite.contenders import Refusal, Task
from ulpgrad.bench.suite.measure import ready, warm
from ulpgrad.bench.suite.record import OURS
from ulpgrad.bench.suite.run import EVERY, sizes
from ulpgrad.bench.timing import SLOW, seconds
from ulpgrad.formats import as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.threads import get_num_threads

Who = tuple[str, str | None]


def pytest_generate_tests(metafunc: Any) -> None:
    """A test for each contender of each cell; who takes no part is told when its turn comes."""
    asked = {name: metafunc.config.getoption(name) for name in ("ops", "formats", "sizes", "peers", "rungs")}
    found = []
    for cell in cells.choose(asked["ops"], asked["formats"], sizes(asked["sizes"]), "cpu"):
        who: list[Who] = [(name, None) for name in peers.chosen(asked["peers"])]
        who += [(OURS, rung) for rung in rungs(cell, asked["rungs"])]
        found += [pytest.param(cell, one, id=f"{cell.name}-{one[1] or one[0]}") for one in who]
    metafunc.parametrize(("cell", "who"), found)


def rungs(cell: Cell, which: str) -> list[str | None]:
    """Names of those asked for; None is what dispatch takes, and the arithmetic of formats that have one of their own."""
    if which == "best" or as_format(cell.format).routed:
        return [None]
    names = [rung.name for rung in registry.ladder(registry.find(cell.op))]
    return [name for name in names if which == EVERY[1] or name in which.split(",")]


@cache
def task(cell: Cell) -> Task:
    return Task(cell, seed=0)


def test_cell(benchmark: Any, cell: Cell, who: Who) -> None:
    name, rung = who
    if (why := cells.too_large(cell)) is not None:
        pytest.skip(why)
    given = task(cell)
    found = contenders.ours(given, rung or "best") if name == OURS else peers.of(given, [name], get_num_threads())
    one = found[0]
    if isinstance(one, Refusal):
        pytest.skip(one.reason)
    with np.errstate(all="ignore"):
        turn, returned = warm(one)
        ready(turn, 1, samples=1)
        benchmark.group = cell.name
        benchmark.extra_info["call"] = given.problem.call
        once = seconds(turn.calls[0])
        benchmark.pedantic(turn.calls[0], rounds=1 if once > SLOW / 10 else 10, iterations=turn.repeats)
        returned = one.call(*one.operands()) if given.op.mutates else returned
        got = one.values(returned)
    form = given.returned(returned)[0]
    main = got[0] if got else None
    if main is not None:  # else: random numbers of its own, or a result that it does not give
        assert exact.wrong(main, given.expected[0], form) is None, one.label
        benchmark.extra_info["relative_error"] = exact.relative(main, given.expected[0])
