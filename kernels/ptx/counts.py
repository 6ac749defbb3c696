"""What a kernel asks of a card: instructions of warps, sectors of memory, turns at shared memory.

Counted as NVIDIA's profilers count, by what their guides say: a request is one instruction of one warp; global memory is read and
written in sectors of 32 bytes; shared memory has 32 banks of 4 bytes, and a request takes as many turns as there are different
words in its worst bank (8 bytes for each thread: in two halves of the warp, 16 bytes: in four quarters).
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SECTOR, BANKS, WORD = 32, 32, 4


@dataclass
class Counts:
    """`instructions`: of warps, by name ("ld.global", "mma", "fma", ...). `sectors`: that loads and stores of global memory
    touch, `requests` of them; `turns`: at shared memory, and `least`: turns that as many bytes take without conflicts."""

    instructions: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    sectors: int = 0
    turns: int = 0
    least: int = 0
    of_matrices: tuple[int, int] = (0, 0)  # `turns` and `least` of ldmatrix alone

    def at_memory(self, arrays: Any, offsets: Any, warps: Any) -> None:
        """A load or store of global memory, of at most 16 bytes by each thread: in which array, and how far behind its beginning
        (which is that of a sector on a card, and need not be on the host)."""
        self.requests += len(np.unique(warps))
        self.sectors += len(np.unique(np.stack([warps, arrays, offsets // SECTOR], 1), axis=0))

    def at_shared(self, places: Any, size: int, lanes: Any, matrices: bool = False) -> None:
        """Threads (or rows of matrices, numbered like threads) at `size` bytes each of shared memory."""
        together = max(1, min(32, BANKS * WORD // size))  # threads whose bytes fill the banks once
        words = places[:, None] // WORD + np.arange(max(1, size // WORD))
        groups = np.broadcast_to((lanes // together)[:, None], words.shape)
        different = np.unique(np.stack([groups.ravel(), words.ravel()], 1), axis=0)
        banks, turns = np.unique(np.stack([different[:, 0], different[:, 1] % BANKS], 1), axis=0, return_counts=True)
        _, first = np.unique(banks[:, 0], return_index=True)
        worst = int(np.maximum.reduceat(turns, first).sum())
        self.turns, self.least = self.turns + worst, self.least + len(first)
        if matrices:
            self.of_matrices = self.of_matrices[0] + worst, self.of_matrices[1] + len(first)


_now: list[Counts] = []


def now() -> Counts | None:
    """Where to count, while somebody does."""
    return _now[-1] if _now else None


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count what kernels ask for that run in the block on this machine (`run_text`, or all under ULPGRAD_CUDA=ptx)."""
    found = Counts()
    _now.append(found)
    try:
        yield found
    finally:
        _now.remove(found)


__all__ = ["Counts", "counted", "now"]
