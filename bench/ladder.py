"""Climb an op's ladder: every rung on one problem, timed, and compared with the roofline of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.bench import machine, peak, roofline
from ulpgrad.bench.gpu import events
from ulpgrad.bench.rungs import mix
from ulpgrad.bench.rungs.mix import Mix
from ulpgrad.bench.shapes import Problem
from ulpgrad.bench.timing import REST, Timing, measure
from ulpgrad.errors import KernelError
from ulpgrad.kernels import gpu, registry
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.threads import get_num_threads

ISAS = ("portable", "avx2", "avx512", "avx-vnni", "dotprod", "vnni")  # names of rungs that are one for each
FLIGHTS = ("The definition, NumPy and Numba", "C++, one idea at a time", "C++, by instruction set")
GPU_FLIGHTS = ("CuPy", "CUDA C++, one idea at a time", "Triton, one idea at a time")
GPU_ROADS = {"cupy": 0, "cuda": 1, "triton": 2}
LIMIT = "Next limit: "
TRIES, SPREAD = 4, 1.3  # measurements of a rung, at most; from the 20th percentile to the 80th of one that will do


@dataclass(frozen=True)
class Step:
    """One rung: its time, or why it was not run. `flight`: its place among the flights; `gain` is over `below`, the measured rung
    under it in the same flight; `share` of the roofline (0 to 1); `error` the norm of what differs from the float64 result
    over its norm."""

    rung: Rung
    flight: int
    refusal: str | None = None
    timing: Timing | None = None
    below: Rung | None = None
    gain: float | None = None
    share: float | None = None
    error: float | None = None
    mix: Mix | None = None

    @property
    def limit(self) -> str:
        """What bounds the rung, as its file says; empty if it does not."""
        return explained(self.rung)[1]

    @property
    def idea(self) -> str:
        """What the rung does, as its file says."""
        return explained(self.rung)[0]


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
    device: str = "cpu"

    @property
    def intensity(self) -> float:
        """FLOP for each byte that must be moved."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def ridge(self) -> float | None:
        """The intensity at which both limits take the same time: below it memory is the limit, above it arithmetic."""
        return None if self.peak_flops is None else self.peak_flops / self.peak_bytes

    @property
    def bound(self) -> str:
        by_arithmetic = self.peak_flops is not None and self.flops / self.peak_flops > self.bytes / self.peak_bytes
        return "arithmetic" if by_arithmetic else "memory"

    def rate(self, step: Step) -> float | None:
        """GFLOP/s where arithmetic is the limit, else GB/s."""
        if step.timing is None:
            return None
        return (self.flops if self.bound == "arithmetic" else self.bytes) / step.timing.median / 1e9

    def as_data(self) -> dict[str, Any]:
        """All figures as JSON takes them, in seconds, operations and bytes."""
        return {
            "op": self.problem.op.name,
            "call": self.problem.call,
            "flops": self.flops,
            "bytes": self.bytes,
            "intensity": self.intensity,
            "ridge": self.ridge,
            "bound": self.bound,
            "peak_flops_per_second": self.peak_flops,
            "peak_bytes_per_second": self.peak_bytes,
            "peak_source": self.peak_source,
            "threads": get_num_threads(),
            "machine": machine.machine(),
            "instruction_set": machine.instruction_sets()["used"],
            "commit": machine.commit(),
            "device": self.device,
            "gpu": machine.gpu()["devices"] if self.device != "cpu" else None,
            "flights": list(FLIGHTS if self.device == "cpu" else GPU_FLIGHTS),
            "rungs": [self._rung_data(step) for step in self.steps],
        }

    def _rung_data(self, step: Step) -> dict[str, Any]:
        data: dict[str, Any] = {"rung": step.rung.name, "flight": step.flight, "idea": step.idea, "limit": step.limit,
                                "refusal": step.refusal}  # fmt: skip
        if step.timing is not None:
            rate = self.rate(step)
            data |= {
                "seconds": step.timing.median,
                "p20": step.timing.p20,
                "p80": step.timing.p80,
                "samples": step.timing.samples,
                "gflops_per_second": rate if self.bound == "arithmetic" else None,
                "gbytes_per_second": rate if self.bound == "memory" else None,
                "below": step.below.name if step.below else None,
                "gain": step.gain,
                "share_of_peak": step.share,
                "error": step.error,
                "loop": step.mix and {**step.mix.as_data(), "text": step.mix.text},
            }
        return data


def climb(
    problem: Problem, samples: int = 20, told: Callable[[str], None] = lambda name: None, device: str = "cpu"
) -> Climb:
    """Time every rung of a device ("cpu", "cuda") that takes the problem. `told` is called with a rung's name before it runs."""
    op, on_gpu = problem.op, device != "cpu"
    if op.check is not None:
        op.check(*problem.arrays, **problem.params)
    op.takes(problem.formats)
    common = dispatch._promoted(op, problem.formats)
    arrays = tuple(a if a is None or not on_gpu else gpu.to_device(a) for a in problem.arrays)
    there = replace(problem, arrays=arrays)
    request = Request(op, device, common, arrays, problem.params)
    exact = [a if a is None or f is None else f.exact(a) for a, f in zip(problem.arrays, problem.formats, strict=True)]
    told("the limits of this machine")
    roof = (roofline.on_gpu if on_gpu else roofline.of)(problem, _results(problem))
    errors = Errors(problem, exact)
    steps: list[Step] = []
    for rung in rungs_on(op, device):
        flight = flight_of(rung)
        refusal = rung.choose(request)[1]
        if refusal is not None:
            steps.append(Step(rung, flight, refusal=refusal))
            continue
        told(rung.name)
        run = call(there, rung)
        timed = (
            partial(events.timing, run, samples)
            if on_gpu
            else partial(measure, run, samples, compiles="numba" in rung.requires)
        )
        timing = steady(timed, TRIES if samples > 1 else 1)
        below = next((s for s in reversed(steps) if s.timing is not None and s.flight == flight), None)
        gain = None if below is None or below.timing is None else below.timing.median / timing.median
        share = roof.seconds / timing.median if roof.seconds else None
        under = None if below is None else below.rung
        steps.append(Step(rung, flight, None, timing, under, gain, share, errors.of(run), mix.of(rung)))
    source = roofline.gpu_source() if on_gpu else peak.source()
    return Climb(problem, roof.flops, roof.bytes, roof.peak_flops, roof.peak_bytes, source, tuple(steps), device)


def steady(measured: Callable[[], Timing], tries: int = TRIES) -> Timing:
    """A measurement, made again while other programs spread its samples; of several the fastest, since they only slow down."""
    time.sleep(REST)
    found = [measured()]
    while len(found) < tries and not found[-1].is_single and found[-1].p80 > SPREAD * found[-1].p20:
        found.append(measured())
    return min(found, key=lambda timing: timing.median)


def rungs_on(op: Op, device: str) -> list[Rung]:
    """The ladder of an op on a device. KernelError if it has none there."""
    found = registry.ladder(op, device)
    if not found:
        raise KernelError(
            f"{op.name} has no rung on {device!r}: --device cpu climbs its {len(registry.ladder(op))} rungs"
        )
    return found


def flight_of(rung: Rung) -> int:
    """A ladder's rungs stand in flights, each climbed from its own foot: an idea is compared with the one it improves on,
    not with another language's best."""
    if rung.device != "cpu":
        return GPU_ROADS[rung.name.partition("/")[2].partition("-")[0]]
    if "/native-" not in rung.name:
        return 0
    return 1 + any(name in rung.name for name in ISAS)


def explained(rung: Rung) -> tuple[str, str]:
    """The idea of a rung, and what it says about its next limit."""
    idea, _, limit = rung.idea.partition(LIMIT)
    if not limit:
        text = " ".join((import_module(rung.module).__doc__ or "").split())
        limit = text.partition(LIMIT)[2] if text.startswith(idea) else ""
    return idea.strip(), limit.strip()


class Errors:
    """Results of a problem held against its reference in float64: nothing for results that are not numbers, or mutated."""

    def __init__(self, problem: Problem, exact: Sequence[Any]) -> None:
        op = problem.op
        self.formats = op.result_formats(dispatch._promoted(op, problem.formats), problem.params)
        self.right: Any = None
        if not op.mutates and all(f.kind == "float" for f in self.formats[:1]):
            with np.errstate(all="ignore"):
                found = op.reference(*exact, **problem.params)
            self.right = np.asarray(found[0] if len(self.formats) > 1 else found, np.float64)

    def of(self, run: Callable[[], Any]) -> float | None:
        """The norm of the difference over the norm; None where it says nothing."""
        if self.right is None or not np.isfinite(size := np.linalg.norm(self.right)) or size == 0:
            return None
        out = run()
        given = self.formats[0].exact(gpu.to_host(out[0] if isinstance(out, tuple) else out))
        error = float(np.linalg.norm(given - self.right) / size)
        return error if np.isfinite(error) else None


def call(problem: Problem, rung: Rung) -> Callable[[], Any]:
    """A function that runs the problem on one rung, with the conversions that dispatch would make."""
    with dispatch.use(**{problem.op.name: rung.name}):
        where = dispatch.device_type(problem.arrays)
        run = dispatch.make_plan(problem.op, where, problem.formats, problem.arrays, problem.params).run

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


__all__ = ["FLIGHTS", "Climb", "Step", "call", "climb", "explained", "flight_of", "rungs_on", "steady"]
