"""A weight in the order in which kernels read it, packed once for many products."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Array
from ulpgrad.kernels import native


class Prepacked:
    """What `linear`'s rungs make of a weight (n, k) that nobody writes to, each when it first asks."""

    def __init__(self, weight: Array) -> None:
        self.weight = weight
        self._made: dict[tuple[str, bool], Any] = {}

    def units(self, isa: str, dots: bool, weight: Array) -> Any:
        """The extension's panels for these units; None if the call's weight is another, as after a conversion."""
        if weight is not self.weight:
            return None
        found = self._made.get((isa, dots))
        if found is None:  # two threads may both make it: the same panels twice
            found = self._made[isa, dots] = native.module().pack_weight(weight, isa, dots)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes beside the weight itself."""
        return sum(made.nbytes for made in self._made.values())
