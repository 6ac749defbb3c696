"""All rows in the order in which they are shown, and how they are run."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ulpgrad.bench import machine, peak
from ulpgrad.bench.peers import others, products, rows, steps, values
from ulpgrad.bench.peers.work import QUICK_SAMPLES, SAMPLES, Outcome, Work, check, measure
from ulpgrad.errors import ArgumentError
from ulpgrad.kernels.threads import get_num_threads, set_num_threads

PEERS = ("torch", "torchao", "jax", "onnxruntime", "apytypes")

# Name -> what makes it, of its name.
WORKS: dict[str, Callable[[str], Work]] = {**products.WORKS, **rows.WORKS, **steps.WORKS, **values.WORKS}


def chosen(words: str, known: Sequence[str]) -> list[str]:
    """Names that contain all words, in any order. ArgumentError if there are none."""
    found = [name for name in known if all(word.lower() in name.lower() for word in words.split())]
    if not found:
        raise ArgumentError(f"no row has all the words of {words!r}; there are: {', '.join(known)}")
    return found


@contextmanager
def threads(count: int) -> Iterator[None]:
    """As many threads in ulpgrad and in torch; both as before afterwards."""
    torch = others.imported("torch")
    before = get_num_threads(), torch and torch.get_num_threads()
    try:
        set_num_threads(count)
        if torch is not None:
            torch.set_num_threads(count)
        yield
    finally:
        set_num_threads(before[0])
        if torch is not None:
            torch.set_num_threads(before[1])


def measure_limits(count: int) -> None:
    """The limits of arithmetic, before a peer has threads that spin."""
    for unit in peak.UNITS:
        peak.rate(unit, count)


def run(
    words: str, count: int, *, quick: bool = False, told: Callable[[Outcome], None] = lambda outcome: None
) -> list[Outcome]:
    """Check and measure every row that has all these words in its name, on `count` threads where it is not per core."""
    found = []
    names = chosen(words, list(WORKS))
    measure_limits(count)
    for name in names:
        with threads(count):
            work = WORKS[name](name)
            each = work.threads or count
            with threads(each):
                errors = check(work)
                found.append(measure(work, each, QUICK_SAMPLES if quick else SAMPLES, errors))
        told(found[-1])
    return found


def circumstances(*, quick: bool, busy: str | None) -> dict[str, Any]:
    """What belongs to every recorded file: machine, versions, commit."""
    return {
        "quick": quick,
        "busy": busy,
        "machine": machine.machine(),
        "instruction_sets": machine.instruction_sets(),
        "extension": machine.extension(),
        "versions": {**machine.versions(), **{name: _version(name) for name in PEERS}},
        "commit": machine.commit(),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


__all__ = ["WORKS", "chosen", "circumstances", "measure_limits", "run", "threads"]
