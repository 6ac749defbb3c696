"""Autotuning on request: every configuration of a call's Triton kernel is timed on the device, and the best is used from then
on, in this process and, through a file, in later ones. Nothing is tuned unasked: without this, a table decides by size.

    from ulpgrad.kernels import triton_tune
    tuned = triton_tune.tune("matmul", (bfloat16, bfloat16), (a, b))        # arrays on the GPU, of the sizes that matter
    print(tuned)
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu, registry, triton_tuned
from ulpgrad.kernels.matmul import triton_configs as configs
from ulpgrad.kernels.registry import Request

WARM, SAMPLES = 3, 20


@dataclass(frozen=True)
class Tuned:
    """The configurations that were tried: milliseconds, or why one did not run."""

    rung: str
    question: configs.Question
    times: dict[configs.Config, float]
    failures: dict[configs.Config, str]

    @property
    def best(self) -> configs.Config:
        return min(self.times, key=self.times.__getitem__)

    def __str__(self) -> str:
        lines = [f"{self.rung}: {self.question}"]
        lines += [
            f"  {time:9.4f} ms  {config}" for config, time in sorted(self.times.items(), key=lambda item: item[1])
        ]
        lines += [f"  {'failed':>12}  {config}: {why}" for config, why in self.failures.items()]
        return "\n".join(lines)


def milliseconds(call: Callable[[], Any], samples: int = SAMPLES) -> float:
    """The median time of a call between two events, each on a second-level cache that holds something else."""
    cuda = gpu.xp().cuda
    other = gpu.xp().empty(2 * cuda.Device().attributes["L2CacheSize"], np.uint8)
    for _ in range(WARM):
        call()
    times = []
    for turn in range(samples):
        before, after = cuda.Event(), cuda.Event()
        other.fill(turn & 0xFF)
        before.record()
        call()
        after.record()
        after.synchronize()
        times.append(cuda.get_elapsed_time(before, after))
    return statistics.median(times)


def tune(
    op: str, formats: tuple[Format | None, ...], arrays: tuple[Any, ...], params: dict[str, Any] | None = None,
    rung: str | None = None, samples: int = SAMPLES,
) -> Tuned:  # fmt: skip
    """Time every configuration of the rung that takes a call (or of `rung`), and keep the best for calls of these sizes.

    Raises KernelError where the call is not one of a Triton kernel with configurations, or none of them runs.
    """
    how = dict(params or {})
    request = Request(registry.find(op), "cuda", formats, arrays, how)
    chosen, widened = registry.select(request, rung)
    if widened:
        raise KernelError(f"tune: {chosen.name} takes {op} of these formats only after they are widened: give it those")
    run = chosen.run(request) if chosen.build else chosen.run
    with configs.heard() as questions:
        run(*arrays, **how)
    if len(set(questions)) != 1:
        raise KernelError(
            f"tune: {op} by {chosen.name} chooses no configuration: expected a tiled Triton kernel; pass rung="
        )
    times: dict[configs.Config, float] = {}
    failures: dict[configs.Config, str] = {}
    for config in filter(questions[0].has_room, configs.table(questions[0].kind)):
        with configs.forced(config):
            try:
                times[config] = milliseconds(lambda: run(*arrays, **how), samples)
            except _failures() as error:
                failures[config] = str(error).splitlines()[0]
    if not times:
        raise KernelError(f"tune: no configuration of {chosen.name} runs: {failures}")
    tuned = Tuned(chosen.name, questions[0], times, failures)
    triton_tuned.keep(str(tuned.question), list(tuned.best))
    return tuned


def _failures() -> tuple[type[Exception], ...]:
    """What a configuration that does not fit a device raises."""
    from triton.errors import TritonError

    return (TritonError,)


__all__ = ["Tuned", "milliseconds", "tune"]
