"""The same work at many sizes: whole powers of two, sizes beside them, primes, thin and stacked ones. A cliff shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ulpgrad.bench.peers import others, table
from ulpgrad.bench.peers.products import attention, matmul
from ulpgrad.bench.peers.rows import rowwise
from ulpgrad.bench.peers.values import codes, product
from ulpgrad.bench.peers.work import SWEEP_SAMPLES, Contender, Outcome, Work, check, measure

SQUARES = (8, 13, 16, 24, 32, 37, 48, 63, 64, 65, 96, 127, 128, 129, 192, 251, 255, 256, 257, 384, 509, 512, 513, 768,
           1021, 1023, 1024, 1025, 1536, 2039, 2048, 3072, 4096)  # fmt: skip
LENGTHS = (8, 16, 37, 64, 100, 128, 255, 256, 257, 512, 1021, 1024, 2048, 4096)
WIDTHS = (8, 10, 16, 37, 64, 100, 128, 255, 256, 257, 512, 1000, 1024, 2048, 4096)
VALUES = 1 << 20  # of a matrix whose rows are reduced
HOPELESS = 50  # times as fast as a peer: it is left out where a call of it would take
PATIENCE = 1.0  # seconds and more

# Rows, sum, columns of products; the first may be stacked.
SHAPES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "1 x 1024 x 1024": ((1, 1024), (1024, 1024)),
    "1024 x 1024 x 1": ((1024, 1024), (1024, 1)),
    "4 x 1024 x 1024": ((4, 1024), (1024, 1024)),
    "16 x 1024 x 1024": ((16, 1024), (1024, 1024)),
    "1024 x 16 x 1024": ((1024, 16), (16, 1024)),
    "1024 x 1024 x 16": ((1024, 1024), (1024, 16)),
    "64 x 784 x 512": ((64, 784), (784, 512)),
    "64 x 256 x 10": ((64, 256), (256, 10)),
    "17 x 4096 x 17": ((17, 4096), (4096, 17)),
    "4096 x 17 x 33": ((4096, 17), (17, 33)),
    "512 of 8 x 8 x 8": ((512, 8, 8), (512, 8, 8)),
    "512 of 16 x 16 x 16": ((512, 16, 16), (512, 16, 16)),
    "64 of 64 x 64 x 64": ((64, 64, 64), (64, 64, 64)),
    "64 of 128 x 32 x 128": ((64, 128, 32), (64, 32, 128)),
}


@dataclass(frozen=True)
class Sweep:
    """`make(name, size)` for each of `sizes`; `x_label` says what sizes are."""

    x_label: str
    sizes: tuple[Any, ...]
    make: Callable[[str, Any], Work]


def squares(name: str, n: int, form: str) -> Work:
    return matmul(name, form, (n, n), (n, n), few=form != "float32")


def shapes(name: str, shape: str, form: str) -> Work:
    return matmul(name, form, *SHAPES[shape], few=True)


def int8(name: str, n: int) -> Work:
    a, b = codes((n, n), np.int8), codes((n, n), np.int8, seed=1)
    ours = product(a, b, None)
    amount = 2.0 * n**3
    found = []
    torch = others.imported("torch")
    if torch is not None and n > 16:  # _int_mm takes no smaller ones
        left, right = torch.from_numpy(a), torch.from_numpy(b)
        found.append(Contender("torch", lambda: torch._int_mm(left, right), amount, lambda y: np.asarray(y.numpy())))
    return Work(name, Contender("ulpgrad", ours.call, amount, ours.values), found, "GOP/s", 1e9)


def heads(name: str, length: int, form: str) -> Work:
    return attention(name, form, (1, 8, length, 64), few=True)


def widths(name: str, width: int, op: str, form: str) -> Work:
    return rowwise(name, op, form, (max(1, VALUES // width), width), few=True)


SWEEPS: dict[str, Sweep] = {
    **{f"matmul {form}": Sweep("n of n x n times n x n", SQUARES, partial(squares, form=form))
       for form in ("float32", "float64", "bfloat16")},
    "matmul int8": Sweep("n of n x n times n x n", SQUARES, int8),
    **{f"matmul {form}, other shapes": Sweep("rows x sum x columns", tuple(SHAPES), partial(shapes, form=form))
       for form in ("float32", "bfloat16")},
    **{f"attention {form}": Sweep("length, 8 heads of 64", LENGTHS, partial(heads, form=form))
       for form in ("float32", "bfloat16")},
    **{f"{op} float32": Sweep("width of rows, about a million values", WIDTHS, partial(widths, op=op, form="float32"))
       for op in ("softmax", "layer_norm")},
}  # fmt: skip


def run(
    words: str, count: int, *, quick: bool = False, told: Callable[[str, Outcome], None] = lambda sweep, outcome: None
) -> dict[str, list[Outcome]]:
    """Every sweep that has all these words in its name: its outcomes in the order of sizes."""
    found: dict[str, list[Outcome]] = {}
    table.measure_limits(count)
    for name in table.chosen(words, list(SWEEPS)):
        sweep = SWEEPS[name]
        found[name] = []
        for size in sweep.sizes[:: 8 if quick else 1]:
            with table.threads(count):
                work = bearable(sweep.make(str(size), size), found[name])
                errors = check(work)
                found[name].append(measure(work, count, SWEEP_SAMPLES, errors))
            told(name, found[name][-1])
    return found


def bearable(work: Work, before: Sequence[Outcome]) -> Work:
    """Without peers that would take PATIENCE for a call and HOPELESS times ours, at the rate that they last had."""

    def is_bearable(peer: Contender) -> bool:
        last = next((o for o in reversed(before) if peer.name in o.peers), None)
        if last is None:
            return True
        rate = last.peers[peer.name]
        return last.rate < HOPELESS * rate or peer.amount / work.scale < PATIENCE * rate

    return replace(work, peers=[peer for peer in work.peers if is_bearable(peer)])


def worst(found: Mapping[str, list[Outcome]]) -> list[tuple[str, Outcome]]:
    """Points in which a peer was faster beyond the noise of both, the worst first."""
    behind = [(name, o) for name, outcomes in found.items() for o in outcomes if o.is_behind]
    return sorted(behind, key=lambda pair: pair[1].ratio or 0)


__all__ = ["SWEEPS", "Sweep", "bearable", "run", "worst"]
