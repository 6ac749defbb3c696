"""Climb an op's ladder: every rung on one problem, timed, and compared with the roofline of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.bench import peak
from ulpgrad.bench.shapes import Problem
from ulpgrad.bench.timing import Timing, measure
from ulpgrad.kernels import registry
from ulpgrad.kernels.registry import Request, Rung

DOTS = ("attention", "conv", "matmul", "recurrent")  # families that are made of dot products


@dataclass(frozen=True)
class Step:
    """One rung: its time, or why it was not run. `gain` is over the rung below, `share` of the roofline (0 to 1)."""

    rung: Rung
    refusal: str | None = None
    timing: Timing | None = None
    gain: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Climb:
    """All rungs, lowest first, and the limits they are compared with.

    `flops`, `bytes`: of one call. `peak_flops`, `peak_bytes`: measured, per second. `bound` says which limit is nearer.
    """

    problem: Problem
    flops: float
    bytes: float
    peak_flops: float | None
    peak_bytes: float
    peak_source: str
    steps: tuple[Step, ...]

    @property
    def bound(self) -> str:
        by_arithmetic = self.peak_flops is not None and self.flops / self.peak_flops > self.bytes / self.peak_bytes
        return "arithmetic" if by_arithmetic else "memory"

    def rate(self, step: Step) -> float | None:
        """GFLOP/s where arithmetic is the limit, else GB/s."""
        if step.timing is None:
            return None
        return (self.flops if self.bound == "arithmetic" else self.bytes) / step.timing.median / 1e9


def climb(problem: Problem, samples: int = 20, told: Callable[[str], None] = lambda name: None) -> Climb:
    """Time every rung that takes the problem. `told` is called with each rung's name before it runs."""
    op = problem.op
    if op.check is not None:
        op.check(*problem.arrays, **problem.params)
    op.takes(problem.formats)
    common = dispatch._promoted(op, problem.formats)
    request = Request(op, "cpu", common, problem.arrays, problem.params)
    exact = [a if a is None or f is None else f.exact(a) for a, f in zip(problem.arrays, problem.formats, strict=True)]
    flops = float(op.flops(*exact, **problem.params))
    moved = op.moved_bytes(problem.arrays, _results(problem), problem.params)
    told("the limits of this machine")
    counted = [f for f in (*common, *op.result_formats(common, problem.params)) if f is not None]
    if op.family == "integer":  # codes run on units of their own
        peak_flops = peak.dots(max(f.bits for f in common if f is not None))
    else:
        form = next((f for f in counted if f.kind == "float"), counted[0])
        peak_flops = peak.flops(form, dots=op.family in DOTS) if flops else None
    peak_bytes = peak.bandwidth(int(moved))
    limit = max(flops / peak_flops if peak_flops else 0.0, moved / peak_bytes)
    steps: list[Step] = []
    below: float | None = None
    for rung in registry.ladder(op):
        refusal = rung.choose(request)[1]
        if refusal is not None:
            steps.append(Step(rung, refusal=refusal))
            continue
        told(rung.name)
        timing = measure(call(problem, rung), samples, compiles="numba" in rung.requires)
        gain = None if below is None else below / timing.median
        steps.append(Step(rung, None, timing, gain, limit / timing.median if limit else None))
        below = timing.median
    return Climb(problem, flops, moved, peak_flops, peak_bytes, peak.source(), tuple(steps))


def call(problem: Problem, rung: Rung) -> Callable[[], Any]:
    """A function that runs the problem on one rung, with the conversions that dispatch would make."""
    with dispatch.use(**{problem.op.name: rung.name}):
        run = dispatch.make_plan(problem.op, "cpu", problem.formats, problem.arrays, problem.params).run

    def once() -> Any:
        with np.errstate(all="ignore"):
            return run(*problem.arrays, **problem.params)

    return once


def _results(problem: Problem) -> tuple[Any, ...]:
    op = problem.op
    if op.mutates:
        return op.mutated(problem.arrays)  # written as well as read
    out, formats = dispatch.call(op, problem.formats, problem.arrays, problem.params)
    return out if len(formats) > 1 else (out,)


__all__ = ["Climb", "Step", "call", "climb"]
