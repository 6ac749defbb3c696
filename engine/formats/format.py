"""A Format gives bits their meaning. Storage is the native array type where NumPy has one, else an integer that holds its
bits; `encode` and `decode` go between storage and plain NumPy values, each with at most one rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any, TypeVar, overload

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats.rounding import Counts, Random

Array = np.ndarray[Any, np.dtype[Any]]


class Format:
    """A number system. Formats are compared by identity: equal parameters give the same object.

    Attributes: `name`; `bits`, the width of one value; `storage`, the NumPy dtype its bits lie in; `differentiable`, whether
    tensors of it can require gradients; `routed`, whether arithmetic on it is not the ordinary kernels' but that of its kind;
    `is_native`, whether the storage dtype computes in this format by itself.
    """

    kind = "abstract"
    differentiable = False
    routed = False
    is_native = True

    name: str
    bits: int
    storage: np.dtype[Any]

    def __init__(self, name: str, bits: int, storage: Any) -> None:
        self.name, self.bits, self.storage = name, bits, np.dtype(storage)

    @property
    def itemsize(self) -> int:
        """Bytes per stored value."""
        return self.storage.itemsize

    @property
    def is_floating(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind == "integer"

    def decode(self, storage: Any) -> Array:
        """Storage to NumPy values that hold each code exactly."""
        return np.asarray(storage)

    def encode(
        self,
        values: Array,
        rounding: str = "nearest_even",
        overflow: str | None = None,
        subnormals: bool = True,
        random: Random | None = None,
        counts: Counts | None = None,
    ) -> Any:
        """NumPy values to storage, rounded once. `random` is what stochastic rounding draws from; `counts` is added to."""
        self.plain(rounding, overflow, subnormals)
        return values.astype(self.storage, copy=False)

    def plain(self, rounding: str, overflow: str | None, subnormals: bool) -> None:
        """Raise FormatError where options are given to a format that has none."""
        if rounding != "nearest_even" or overflow is not None or not subnormals:
            raise FormatError(
                f"{self.name}: rounding={rounding!r}, overflow={overflow!r}, subnormals={subnormals!r}: integers and bools "
                "take none of these options"
            )

    def exact(self, storage: Any) -> Array:
        """Storage to the values that references compute with: float64 for floats, the values themselves for the rest."""
        return np.asarray(storage)

    @property
    def interchange(self) -> np.dtype[Any] | None:
        """The NumPy (or ml_dtypes) dtype that other libraries know this format by, or None."""
        return self.storage

    def __repr__(self) -> str:
        return f"ulpgrad.{self.name}"

    def __str__(self) -> str:
        return self.name

    def __reduce__(self) -> tuple[Any, ...]:
        from ulpgrad.formats import as_format

        return as_format, (self.name,)

    def __copy__(self) -> Format:
        return self

    def __deepcopy__(self, memo: Any) -> Format:
        return self


class Boolean(Format):
    """True and False, one byte each."""

    kind = "bool"


class Integer(Format):
    """A two's complement or unsigned integer. Arithmetic wraps, as in NumPy."""

    kind = "integer"

    def __init__(self, name: str, bits: int, storage: Any, signed: bool = True) -> None:
        super().__init__(name, bits, storage)
        self.signed = signed

    @property
    def min(self) -> int:
        return -(2 ** (self.bits - 1)) if self.signed else 0

    @property
    def max(self) -> int:
        return int(2 ** (self.bits - self.signed) - 1)


F = TypeVar("F", bound=Format)


class Family(Sequence[F]):
    """All formats of some kinds: holds any of them, also those made later; iterates over the ones kernels are tested in."""

    def __init__(self, rows: Sequence[F], belongs: Callable[[Format], bool]) -> None:
        self.rows, self.belongs = tuple(rows), belongs

    def __contains__(self, form: object) -> bool:
        return isinstance(form, Format) and self.belongs(form)

    def __iter__(self) -> Iterator[F]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> F: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[F, ...]: ...
    def __getitem__(self, index: int | slice) -> F | tuple[F, ...]:
        return self.rows[index]

    def __add__(self, other: Family[Any]) -> Family[Any]:
        """The formats of both."""
        return Family((*self.rows, *other.rows), lambda form: form in self or form in other)

    def plus(self, *more: Format) -> Family[Any]:
        """These and some others."""
        return self + Family(more, lambda form: form in more)

    def __repr__(self) -> str:
        return f"({', '.join(map(str, self.rows))}, ...)"


def interned(made: MutableMapping[Any, Any], key: Any, make: Callable[[], Any]) -> Any:
    """The object of a key: made at first, then the same one."""
    found = made.get(key)
    return made.setdefault(key, make()) if found is None else found


__all__ = ["Array", "Boolean", "Family", "Format", "Integer", "interned"]
