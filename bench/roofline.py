"""What a call costs, and what the machine allows: the roofline of one problem, from limits measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ulpgrad import dispatch
from ulpgrad.bench import peak
from ulpgrad.bench.gpu import ceilings
from ulpgrad.bench.shapes import Problem
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu

DOTS = ("attention", "conv", "matmul", "recurrent")  # families that are made of dot products
MOSTLY = 0.9  # a share of the bytes from which a sweep of one direction is the limit


@dataclass(frozen=True)
class Roofline:
    """`flops`, `bytes`: of one call. `peak_flops`, `peak_bytes`: per second; None: nothing is counted, or there is no unit."""

    flops: float
    bytes: float
    peak_flops: float | None
    peak_bytes: float

    @property
    def bound(self) -> Literal["arithmetic", "memory"]:
        """Which limit is nearer."""
        by_arithmetic = self.peak_flops is not None and self.flops / self.peak_flops > self.bytes / self.peak_bytes
        return "arithmetic" if by_arithmetic else "memory"

    @property
    def seconds(self) -> float:
        """The least time in which the machine could do it."""
        return max(self.flops / self.peak_flops if self.peak_flops else 0.0, self.bytes / self.peak_bytes)


def of(problem: Problem, results: Sequence[Any], copies: int = 1) -> Roofline:
    """The roofline of a problem whose results are known; `copies`: of operands and results, that calls go through in turn."""
    op = problem.op
    common = dispatch._promoted(op, problem.formats)
    flops, moved = costs(problem, results)
    counted = [f for f in (*common, *op.result_formats(common, problem.params)) if f is not None]
    written = float(sum(a.nbytes for a in results))
    return Roofline(
        flops, moved, arithmetic(op.family, common, counted) if flops else None, memory(moved, written, copies)
    )


def costs(problem: Problem, results: Sequence[Any]) -> tuple[float, float]:
    """Operations of a call, and the bytes that it must move."""
    op = problem.op
    exact = [a if a is None or f is None else f.exact(a) for a, f in zip(problem.arrays, problem.formats, strict=True)]
    return float(op.flops(*exact, **problem.params)), op.moved_bytes(problem.arrays, results, problem.params)


def on_gpu(problem: Problem, results: Sequence[Any]) -> Roofline:
    """The same against the limits of the device: its copies, and for dot products those of cuBLAS."""
    flops, moved = costs(problem, results)
    form = next((f.name for f in dispatch._promoted(problem.op, problem.formats) if f is not None), "")
    peak_flops = ceilings.product_rate(form) if flops and problem.op.family in DOTS else None
    return Roofline(flops, moved, peak_flops, ceilings.copy_bandwidth())


def gpu_source() -> str:
    """What the limits of a device are measured with."""
    return "of an emulated GPU, with copies on the host" if gpu.mode() else "with copies, and products of cuBLAS"


def arithmetic(family: str, common: Sequence[Format | None], counted: Sequence[Format]) -> float | None:
    """The limit of the unit that a family's kernels compute on, in operations a second."""
    if family == "integer":  # codes run on units of their own
        return peak.dots(max(f.bits for f in common if f is not None))
    form = next((f for f in counted if f.kind == "float"), counted[0])
    return peak.flops(form, dots=family in DOTS)


def memory(moved: float, written: float, copies: int = 1) -> float:
    """Bytes a second of a sweep over as much memory, in the directions in which the call moves it."""
    share = written / moved if moved else 0.0
    size = _near(int(moved) * copies)
    if share > MOSTLY:
        return peak.bandwidth(size, sweep="write")
    found = peak.bandwidth(size)
    return max(found, peak.bandwidth(size, sweep="read")) if share < 1 - MOSTLY else found


def _near(size: int) -> int:
    """A size with two leading bits, so that few sweeps serve many problems."""
    scale = 1 << max(0, size.bit_length() - 2)
    return max(1, round(size / scale)) * scale


__all__ = ["DOTS", "Roofline", "arithmetic", "gpu_source", "memory", "of", "on_gpu"]
