"""Op: the contract of one operation, from which its tests, benchmarks, ladder and dispatch follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from ulpgrad.errors import FormatError
from ulpgrad.formats import ALL, Array, Format
from ulpgrad.formats.promotion import result_format

Arrays = Sequence[Array | None]
ResultRule = Callable[..., "Format | tuple[Format, ...]"]


class Sample(NamedTuple):
    """One example call: exact values (float64, integer or bool arrays; None for an absent operand) and parameters."""

    arrays: tuple[Array | None, ...]
    params: Mapping[str, Any] = MappingProxyType({})
    name: str = ""


def of_absolutes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same sums over absolute values: what an error is measured against."""
    return lambda *arrays, **params: function(*(None if a is None else abs(a) for a in arrays), **params)


def promoted(*formats: Format | None, **_: Any) -> Format:
    """Result rule: all operands promote to one format, which is the result's."""
    return result_format(*(f for f in formats if f is not None))


def first(*formats: Format | None, **_: Any) -> Format:
    """Result rule: the result has the format of the first operand."""
    assert formats[0] is not None
    return formats[0]


@dataclass(eq=False, repr=False)
class Op:
    """One operation: what is right, what it takes, what it costs.

    - `signature`: shapes as a reader wants them, "(x: [..., n], *, axis=-1) -> [..., n]".
    - `reference(*arrays, **params)`: the obviously right result. Floats arrive as float64, the rest as they are; the
      result is rounded once to the result format.
    - `check(*arrays, **params)`: raises ShapeError or ArgumentError; sees arrays (or anything with shape and ndim).
    - `result(*formats, **params)`: format(s) of the result. `formats`: what operands may be.
    - `promote`: operands are converted to their common format before the kernel (off for indices, masks, ...: name the
      operands that take part as a tuple of positions).
    - `flops`, `bytes`: cost of one call, from the same arguments as `reference`; bytes counts each operand and result
      once unless said otherwise.
    - `samples()`: example calls, edges included. `ulps`: allowed error per result format, in units in the last place of
      `magnitude(*arrays, **params)` (default: the reference result itself).
    - `key(*arrays, **params)`: what selection depends on beside device and formats (sizes, layouts); hashable.
    - `mutates`: positions of operands that are written in place. Such an op returns those that are present, and so does
      its reference (as new values); one alone is returned bare, not in a tuple.
    """

    name: str
    signature: str
    reference: Callable[..., Any]
    doc: str = ""
    check: Callable[..., None] | None = None
    result: ResultRule = promoted
    formats: Sequence[Format] = ALL
    promote: bool | tuple[int, ...] = True
    flops: Callable[..., float] = lambda *arrays, **params: 0
    bytes: Callable[..., float] | None = None
    samples: Callable[[], Iterable[Sample]] = lambda: ()
    ulps: Mapping[Format, float] = field(default_factory=dict)
    magnitude: Callable[..., Any] | None = None
    key: Callable[..., Any] | None = None
    mutates: tuple[int, ...] = ()
    family: str = ""

    def __post_init__(self) -> None:
        """Take the family (folder) from the module of the reference, and enter the op into the registry."""
        from ulpgrad.kernels import registry

        self.family = self.family or self.reference.__module__.removeprefix("ulpgrad.kernels.").split(".")[0]
        registry.enter(self)

    def __repr__(self) -> str:
        return f"<Op {self.name}{self.signature}>"

    def takes(self, formats: Sequence[Format | None]) -> None:
        """Raise FormatError where an operand's format is not among `formats`."""
        for f in formats:
            if f is not None and f not in self.formats:
                names = ", ".join(g.name for g in self.formats)
                raise FormatError(
                    f"{self.name}: {f.name} is not taken; expected one of {names}; convert with .to(format)"
                )

    def result_formats(self, formats: Sequence[Format | None], params: Mapping[str, Any]) -> tuple[Format, ...]:
        """The formats of all results, as a tuple even when there is one."""
        out = self.result(*formats, **params)
        return out if isinstance(out, tuple) else (out,)

    def run_reference(self, arrays: Arrays, formats: Sequence[Format | None], params: Mapping[str, Any]) -> Any:
        """The reference on stored arrays: decode exactly, compute, round once."""
        exact = [a if a is None or f is None else f.exact(a) for a, f in zip(arrays, formats, strict=True)]
        outs = self.result_formats(formats, params)
        with _quiet():
            values = self.reference(*exact, **params)
            if len(outs) == 1:
                return outs[0].encode(_array(values))
            return tuple(f.encode(_array(v)) for f, v in zip(outs, values, strict=True))

    def run_reference_in_place(
        self, arrays: Arrays, formats: Sequence[Format | None], params: Mapping[str, Any]
    ) -> Any:
        """The reference of an op that mutates: its results are written into the operands, which are returned."""
        targets = self.mutated(arrays)
        values = self.run_reference(arrays, formats, params)
        for target, value in zip(targets, [values] if len(targets) == 1 else values, strict=True):
            target[...] = value
        return targets[0] if len(targets) == 1 else targets

    def mutated(self, arrays: Arrays) -> tuple[Array, ...]:
        """The operands that a call writes in place: those of `mutates` that are present."""
        return tuple(a for a in (arrays[i] for i in self.mutates) if a is not None)

    def allowed_ulps(self, form: Format) -> float:
        """Allowed error of a rung in this result format, in ULPs; 0.5 rounding is in it. Default 1."""
        return self.ulps.get(form, 1.0)

    def moved_bytes(self, arrays: Arrays, outs: Sequence[Array], params: Mapping[str, Any]) -> float:
        """Bytes the call must move at least: each operand and each result once, unless the op says otherwise."""
        if self.bytes is not None:
            return self.bytes(*arrays, **params)
        return float(sum(a.nbytes for a in (*arrays, *outs) if a is not None))


def _array(values: Any) -> Array:
    import numpy as np

    return np.asarray(values)


def _quiet() -> Any:
    import numpy as np

    return np.errstate(all="ignore")


__all__ = ["Arrays", "Op", "Sample", "first", "of_absolutes", "promoted"]
