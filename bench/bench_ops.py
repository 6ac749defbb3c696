"""Every rung of every op on the op's representative problem, stamped out from the registry.

The call stands in each record (`extra_info`); `ulpgrad ladder` sets the same calls against the roofline.
"""

from __future__ import annotations

from typing import Any

import pytest

from ulpgrad.bench import ladder, shapes
from ulpgrad.bench.timing import SLOW, seconds
from ulpgrad.kernels import registry
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op

RUNGS = [(op, rung) for op in registry.ops().values() for rung in registry.ladder(op)]


@pytest.mark.parametrize(("op", "rung"), [pytest.param(op, rung, id=f"{op.name}-{rung.name}") for op, rung in RUNGS])
def test_rung(benchmark: Any, op: Op, rung: Rung) -> None:
    problem = shapes.problem(op)
    refusal = rung.choose(Request(op, "cpu", problem.formats, problem.arrays, problem.params))[1]
    if refusal is not None:
        pytest.skip(refusal)
    call = ladder.call(problem, rung)
    warm = seconds(call)
    warm = warm if warm > SLOW else seconds(call)
    benchmark.group = op.name
    benchmark.extra_info["call"] = problem.call
    benchmark.pedantic(call, rounds=1 if warm > SLOW / 10 else 10, iterations=max(1, int(1e-3 / max(warm, 1e-7))))
