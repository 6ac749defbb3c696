"""What rounds the tensors of one role at one place: a format with its rounding, or something that chooses the format anew.

Values stay floats, on the format's grid: a grid and a factor, so that products run on ordinary kernels and are exact in the
operands. Integer kernels get the same values as codes.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ulpgrad import autograd
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Array, Block, BlockArray, Fixed, Float, Format, as_format, float32, float64
from ulpgrad.ops.quantize import ESTIMATORS, Estimator
from ulpgrad.policy.rounding import in_blocks, on_grid, values_of
from ulpgrad.random import Generator


class Grid:
    """An array on a format's grid: what it stands for is `values * scale`. `form` is None for what was not rounded."""

    __slots__ = ("_codes", "form", "scale", "values")

    def __init__(self, values: Array, scale: float = 1.0, form: Format | None = None) -> None:
        self.values, self.scale, self.form = values, scale, form
        self._codes: Array | None = None

    def codes(self) -> Array:
        """The same as integers (of a fixed-point grid), exactly."""
        form = self.form
        assert isinstance(form, Fixed)
        if self._codes is None:
            n = form.fraction_bits
            near = -100 <= n <= 100  # a power that float32 holds
            units = self.values * self.values.dtype.type(2.0**n) if near else np.ldexp(self.values, n)
            self._codes = units.astype(form.storage)
        return self._codes

    def plain(self) -> Array:
        """What it stands for, in one array."""
        return self.values if self.scale == 1.0 else self.values * self.values.dtype.type(self.scale)


class InBlocks(Grid):
    """Values of a GPU in blocks: as codes and scales, which its products take, and as values where those are asked for."""

    __slots__ = ("_decoded", "blocks")

    def __init__(self, blocks: BlockArray, form: Block) -> None:
        self.blocks, self.scale, self.form, self._codes = blocks, 1.0, form, None
        self._decoded: Array | None = None

    @property
    def values(self) -> Array:  # type: ignore[override]
        if self._decoded is None:
            assert isinstance(self.form, Block)
            self._decoded = values_of(self.blocks, self.form, np.float32)
        return self._decoded


class Quantizer(Protocol):
    """Rounds arrays. `blocks` says that they lie along an axis."""

    blocks: bool

    def round(self, values: Array, axis: int = -1) -> Grid: ...


def learning(role: str) -> bool:
    """Whether what passes now is training, which choosers learn from: evaluation under `no_grad` moves nothing."""
    return role == "update" or autograd.is_grad_enabled() or autograd.is_in_backward()


class Chooser:
    """Base of what stands in a role instead of a format and makes a quantizer, with a state of its own, for each place.

    `everywhere` says whether results of ops and gradients on their way are rounded too, or only what enters a product.
    """

    everywhere = True

    def quantizer(self, role: str, rounding: str, overflow: str, generator: Generator) -> Any:
        """A quantizer for one place, with `state_dict` and `load_state_dict`."""
        raise NotImplementedError


def everywhere(given: Any) -> bool:
    """Whether what stands in a role rounds results of ops and gradients on their way, or only what enters products."""
    return given.kind != "block" if isinstance(given, Format) else isinstance(given, Chooser) and given.everywhere


class Plain:
    """One format, whatever comes."""

    def __init__(self, form: Format, rounding: str, overflow: str, generator: Generator) -> None:
        self.form, self.rounding, self.overflow, self.generator = form, rounding, overflow, generator
        self.blocks = form.kind == "block"

    def round(self, values: Array, axis: int = -1) -> Grid:
        """To the grid of the format; blocks lie along `axis`."""
        if isinstance(self.form, Block) and values.__class__ is not np.ndarray and values.dtype == np.float32:
            return InBlocks(in_blocks(values, self.form, self.rounding, self.generator, axis), self.form)
        return Grid(on_grid(values, self.form, self.rounding, self.overflow, self.generator, axis), 1.0, self.form)


def checked(given: Any, role: str, what: str) -> Any:
    """What a role was given, with names of formats looked up. FormatError for a format that the role cannot be in."""
    if given is None or isinstance(given, Chooser) or (callable(given) and not isinstance(given, Format | type)):
        return given
    form = as_format(given)
    if form.kind not in ("float", "fixed", "block"):
        raise FormatError(
            f"{what}: {role}={form.name}: expected a float, fixed-point or block format, a DynamicFixed, or a function of a "
            "tensor"
        )
    if isinstance(form, Float | Fixed) and not form.signed and role != "activation":
        raise FormatError(f"{what}: {role}={form.name}: {role}s have signs, and the format has none")
    if isinstance(form, Float) and not form.has_zero:
        raise FormatError(f"{what}: {role}={form.name}: the format has no zero: it can only hold scales")
    if role == "update" and form.kind == "block":
        raise FormatError(f"{what}: update={form.name}: parameters are kept in a float or fixed-point format")
    return None if form in (float32, float64) else form


def estimator(given: Any, what: str) -> Estimator | None:
    """A function from its name, or itself; None for the straight road, which needs no work. ArgumentError for a name there is
    not."""
    if given == "straight_through" or given is ESTIMATORS["straight_through"]:
        return None
    if callable(given):
        return given  # type: ignore[no-any-return]
    if given not in ESTIMATORS:
        raise ArgumentError(
            f"{what}: estimator={given!r}: expected {', '.join(ESTIMATORS)}, or a function of gradient, value and format"
        )
    return ESTIMATORS[given]
