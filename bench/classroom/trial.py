"""One examination of an answer: fresh operands, calls that are watched, and comparisons whose messages lead on."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, NoReturn

import numpy as np

from ulpgrad.bench.classroom.trace import Traced, traced
from ulpgrad.errors import UlpgradError
from ulpgrad.formats import Array, Format, as_format, float64
from ulpgrad.kernels import registry
from ulpgrad.testing import ulp_error

Suspects = Mapping[str, Any]  # sentence -> the wrong result that it speaks of
# What results are filled with beforehand: NaN with digits of our own, or bytes that no exercise asks for.
BLANK = {
    "f2": 0x7E5A,
    "f4": 0x7FC05A5A,
    "f8": 0x7FF85A5A5A5A5A5A,
    "1": 0x5A,
    "2": 0x5A5A,
    "4": 0x5A5A5A5A,
    "8": 0x5A5A5A5A5A5A5A5A,
}

FENCE = 512  # elements before and behind an operand that is fenced


class Wrong(UlpgradError, AssertionError):
    """The answer is wrong; the message says how, and what to think about."""


class Trial:
    """What a checker works with: `rng` for operands, and an answer to call."""

    def __init__(self, answer: ModuleType, rng: np.random.Generator, told: Callable[[str], None]) -> None:
        self.answer, self.rng, self.told = answer, rng, told
        self._fences: list[tuple[Array, int]] = []

    def stage(self, text: str) -> None:
        """Say what is looked at from here on: it stands beside a failure."""
        self.told(text)

    def wrong(self, message: str) -> NoReturn:
        raise Wrong(message)

    def blank(self, shape: int | tuple[int, ...], dtype: Any = np.float32) -> Array:
        """A result to be filled: NaN, or a value that no exercise asks for, in every place."""
        made = np.empty(shape, dtype)
        _bits(made)[...] = _blank(made.dtype)
        return made

    def fenced(self, values: Array) -> Array:
        """The same values, with fences before and behind them in memory: NaN, or bytes that no exercise asks for. They spoil
        a result that reads them, and every later call shows whether it wrote there."""
        buffer = self.blank(values.size + 2 * FENCE, values.dtype)
        inner = buffer[FENCE : FENCE + values.size].reshape(values.shape)
        inner[...] = values
        self._fences.append((buffer, values.size))
        return inner

    def call(self, name: str, *args: Any, writes: Sequence[int] = (), **params: Any) -> Any:
        """Call a function of the answer. Operands it may not write to (all but those of `writes`) must stay as they are."""
        before = [a.copy() if isinstance(a, np.ndarray) else None for a in args]
        made = getattr(self.answer, name)(*args, **params)
        for i, (old, now) in enumerate(zip(before, args, strict=True)):
            if old is not None and i not in writes and old.tobytes() != now.tobytes():
                self.wrong(
                    f"{name} changed its operand number {i + 1}. Operands belong to the caller, who may need them again: "
                    f"write results somewhere else."
                )
        for buffer, size in self._fences:
            outside = _bits(buffer) != _blank(buffer.dtype)
            before_it, behind = outside[:FENCE].any(), outside[FENCE + size :].any()
            if before_it or behind:
                self.wrong(
                    f"{name} wrote to memory {'before' if before_it else 'behind'} an array of {size} elements. Nothing stops a "
                    "pointer: what lies beyond the end has to be masked out, in loads and in stores."
                )
        return made

    def same(self, got: Any, want: Any, *, what: str = "the result", suspects: Suspects | None = None) -> None:
        """Values that must be equal: whole numbers, codes, formats."""
        self._fit(got, want, what)
        g, w = np.asarray(got), np.asarray(want)
        different = (g != w) & ~((g != g) & (w != w))
        if different.any():
            self._explain(g, g, w, np.argmax(different), what, suspects or {}, 0.0, "")

    def near(
        self, got: Any, want: Any, *, ulps: float, form: Format | None = None, magnitude: Any = None,
        what: str = "the result", suspects: Suspects | None = None,
    ) -> None:  # fmt: skip
        """Floats within `ulps` units in the last place of `magnitude` (default: of what is right)."""
        self._fit(got, want, what)
        form = form or as_format(np.asarray(got).dtype)
        error = np.asarray(ulp_error(np.asarray(got), np.asarray(want), form, magnitude))
        if error.size and not error.max() <= ulps:
            worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
            size = error.flat[worst]
            text = (
                f", {size:.3g} units in the last place of {form} away (at most {ulps:g} are allowed)"
                if size < 1e4
                else ""
            )
            values = np.asarray(form.exact(np.asarray(got)))
            self._explain(
                np.asarray(got),
                values,
                np.asarray(want),
                worst,
                what,
                suspects or {},
                1e-7 if form is float64 else 1e-4,
                text,
            )

    def against(
        self, op: str, arrays: Sequence[Array | None], params: Mapping[str, Any], got: Any, *,
        what: str = "the result", suspects: Suspects | None = None,
    ) -> None:  # fmt: skip
        """Compare with the project's own definition of an op, in the units that it allows its kernels."""
        spec = registry.find(op)
        formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
        exact = [a if a is None or f is None else f.exact(a) for a, f in zip(arrays, formats, strict=True)]
        (form,) = spec.result_formats(formats, params)
        with np.errstate(all="ignore"):
            want = np.asarray(spec.reference(*exact, **params))
            magnitude = None if spec.magnitude is None else spec.magnitude(*exact, **params)
        if form.kind == "float":
            self.near(
                got, want, ulps=spec.allowed_ulps(form), form=form, magnitude=magnitude, what=what, suspects=suspects
            )
        else:
            self.same(got, want.astype(form.storage), what=what, suspects=suspects)

    def peak(self, name: str, *args: Any) -> int:
        """Bytes that a call holds at the same time, at most."""
        tracemalloc.start()
        try:
            self.call(name, *args)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def trace(self, name: str, *args: Any) -> Traced:
        """Run a kernel of the answer as plain Python, on arrays that record every access; see `trace.Traced`."""
        try:
            return traced(self.answer, name, args)
        except TypeError as error:
            if "Recorded" in str(error):
                self.wrong(
                    "every access to the operands is recorded here, so the kernel must go element by element, as x[i, j]: "
                    f"whole arrays and slices cannot take part in arithmetic ({error})"
                )
            raise

    def _fit(self, got: Any, want: Any, what: str) -> None:
        """Refuse what is not there, or of another shape or type."""
        if got is None:
            self.wrong(f"{what} is None: does the function end without `return`?")
        if not isinstance(want, (np.ndarray, np.generic)):
            return
        if not isinstance(got, (np.ndarray, np.generic, int, float)):
            self.wrong(f"{what} is {type(got).__name__}: expected a NumPy array of shape {want.shape}")
        if np.shape(got) != want.shape:
            self.wrong(f"{what} has shape {np.shape(got)}: expected {want.shape}")

    def _explain(
        self,
        stored: Array,
        got: Array,
        want: Array,
        worst: Any,
        what: str,
        suspects: Suspects,
        tolerance: float,
        text: str,
    ) -> NoReturn:
        at = tuple(int(i) for i in np.unravel_index(int(worst), want.shape))
        place = f"{what} at {list(at)}" if at else what
        g, w = got[at], want[at]
        unwritten = _bits(stored) == _blank(stored.dtype)
        added = ", or was added to without being set to zero first" if got.dtype.kind == "f" else ""
        if unwritten.all():
            self.wrong(f"nothing was written to {what}: every element is as it was before the call{added}")
        digits = 17 if np.isclose(float(g), float(w), 1e-6, 0) else 6
        found = f"{place} is {_text(g, digits)}; right is {_text(w, digits)}{text}"
        if not got.any():
            found += " (all of it is zero)"
        if unwritten[at]:
            found = (
                f"{place} was never written{added}. Does the loop reach every element? {int(unwritten.sum())} are left"
            )
        count = int(np.sum((got != want) & ~((got != got) & (want != want)))) if tolerance == 0 else 0
        if count > 1:
            found += f" (and {count - 1} more of {want.size} differ)"
        for sentence, suspect in suspects.items():
            value = np.asarray(suspect)
            near = 0.01 * tolerance * float(np.nanmax(np.abs(want), initial=0.0))
            says_nothing = not value.any() and not got.any()  # zeros agree with zeros
            if (
                value.shape == got.shape
                and not says_nothing
                and np.allclose(got, value, tolerance, near, equal_nan=True)
            ):
                self.wrong(f"{found}. {sentence}")
        self.wrong(f"{found}.")


def _bits(values: Array) -> Array:
    return np.ascontiguousarray(values).reshape(values.shape).view(f"u{values.itemsize}")


def _blank(dtype: np.dtype[Any]) -> int:
    return BLANK[f"{'f' if dtype.kind == 'f' else ''}{dtype.itemsize}"]


def _text(value: Any, digits: int) -> str:
    return f"{value:.{digits}g}" if value.dtype.kind == "f" else str(value)


__all__ = ["Suspects", "Trial", "Wrong"]
