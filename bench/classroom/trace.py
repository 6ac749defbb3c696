"""What a kernel does to memory, counted: it runs as plain Python on arrays that record every access.

From the record follow how often each element is read and written, the misses of a small cache that is simulated, and races:
elements that one iteration of `prange` writes and another touches.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels.numba_jit import Jit

OUTSIDE = -1  # the iteration of what is not inside a prange
APART = 1 << 20  # arrays lie this many elements apart in the simulated memory


class Access(NamedTuple):
    """One read or write of one element; `loop` counts the prange loops that were entered before."""

    array: int
    element: int
    is_write: bool
    iteration: int
    loop: int


class Recorded:
    """An array that records accesses to its elements. Slices are views of it; only whole loops over elements are seen."""

    def __init__(self, traced: Traced, number: int, data: Array, elements: Array) -> None:
        self._traced, self._number, self._data, self._elements = traced, number, data, elements
        self.shape, self.ndim, self.size, self.dtype = data.shape, data.ndim, data.size, data.dtype

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> Any:
        elements = self._elements[key]
        if np.ndim(elements):
            return Recorded(self._traced, self._number, self._data[key], elements)
        self._traced.note(self._number, int(elements), is_write=False)
        return self._data[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        for element in np.ravel(self._elements[key]):
            self._traced.note(self._number, int(element), is_write=True)
        self._data[key] = value

    @property
    def T(self) -> Recorded:
        return Recorded(self._traced, self._number, self._data.T, self._elements.T)


class Traced:
    """The record of one run. `arrays` are the operands after it."""

    def __init__(self) -> None:
        self.accesses: list[Access] = []
        self.arrays: list[Array] = []
        self.iteration, self.loops = OUTSIDE, 0

    def note(self, array: int, element: int, *, is_write: bool) -> None:
        self.accesses.append(Access(array, element, is_write, self.iteration, self.loops))

    def prange(self, *bounds: int) -> Iterator[int]:
        """Stands in for Numba's: the iterations one after the other, each by its number."""
        self.loops += 1
        for i in range(*bounds):
            self.iteration = i
            yield i
        self.iteration = OUTSIDE

    def count(self, array: int, *, writes: bool = False) -> Array:
        """How often each element of operand number `array` was read (or written)."""
        found = [a.element for a in self.accesses if a.array == array and a.is_write == writes]
        counts: Array = np.bincount(found, minlength=self.arrays[array].size)
        return counts.reshape(self.arrays[array].shape)

    def races(self) -> list[tuple[int, int, int, int]]:
        """(array, element, iteration, other iteration) where one of the two writes; the first for each element."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        touched: dict[tuple[int, int, int], tuple[set[int], set[int]]] = {}
        for a in self.accesses:
            if a.iteration == OUTSIDE:
                continue
            readers, writers = touched.setdefault((a.loop, a.array, a.element), (set(), set()))
            others = (readers | writers if a.is_write else writers) - {a.iteration}
            if others:
                found.setdefault((a.array, a.element), (min(others), a.iteration))
            (writers if a.is_write else readers).add(a.iteration)
        return [(*place, *pair) for place, pair in found.items()]

    def misses(self, *, lines: int, line: int) -> int:
        """Misses of a cache that holds `lines` lines of `line` elements, and lets the one go that was unused longest."""
        held: OrderedDict[int, None] = OrderedDict()
        missed = 0
        for a in self.accesses:
            tag = (a.array * APART + a.element) // line
            if tag in held:
                held.move_to_end(tag)
                continue
            missed += 1
            held[tag] = None
            if len(held) > lines:
                held.popitem(last=False)
        return missed


def traced(answer: ModuleType, name: str, args: Sequence[Any]) -> Traced:
    """Run a function of the answer, uncompiled. Arrays among its arguments are copied; `arrays` holds them in their order."""
    made = Traced()
    scope = vars(answer)
    kept = dict(scope)
    given = []
    for a in args:
        if isinstance(a, np.ndarray):
            made.arrays.append(a.copy())
            number = len(made.arrays) - 1
            given.append(Recorded(made, number, made.arrays[-1], np.arange(a.size).reshape(a.shape)))
        else:
            given.append(a)
    try:
        for key, value in kept.items():
            if isinstance(value, Jit):
                scope[key] = value.function
            elif hasattr(value, "py_func"):
                scope[key] = value.py_func
        scope["prange"] = made.prange
        scope[name](*given)
    finally:
        scope.clear()
        scope.update(kept)
    return made


__all__ = ["Access", "Recorded", "Traced", "traced"]
