"""Gradients that are still to be multiplied: by the inverse of a loss scale, by what clips their norm.

The product is made where it is first read. An optimizer's step makes it in the pass that reads the gradient anyway; anything else
makes it in a pass of its own, with the same bits: every product is rounded to the gradient's format.
"""

from __future__ import annotations

import copy
import functools
import math
import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import as_array, beside, device_of
from ulpgrad.errors import GradientError
from ulpgrad.formats import Array, Format, float64
from ulpgrad.kernels import capture, gpu, registry
from ulpgrad.kernels.copy import copied
from ulpgrad.kernels.optimizer import multi
from ulpgrad.kernels.optimizer.spec import sum_of_squares
from ulpgrad.tensor import Tensor

Factor = Any  # a number, or float64[] on a device, where the host does not know it
Part = tuple[Any, int]  # an array of sums, and the place of one in it


class Flag:
    """Whether something holds that a device is still finding out. `bool(flag)` waits for that, and for nothing asked later; of a
    captured one it says what the last replay found."""

    __slots__ = ("_capture", "_told", "_wait", "value")

    def __init__(self, value: Any) -> None:
        """`value`: bool[] on a device, in the current stream."""
        self.value = value
        self._capture = captured = capture.current()
        with beside(value):
            self._told = gpu.pinned(np.zeros((), np.bool_))
            value.get(out=self._told, blocking=False)
            if captured is not None:
                captured.arrays.append(self._told)
                self._wait: Any = captured.wait
                return
            event = gpu.xp().cuda.Event(disable_timing=True)
            event.record()
            gpu.hold(self._told, event)
        self._wait = event.synchronize

    def __bool__(self) -> bool:
        if self._capture is not None and self._capture is capture.current():
            capture.refuse("asking whether gradients were finite", "it is known after replay()")
        self._wait()
        return bool(self._told)

    def __repr__(self) -> str:
        return f"Flag({bool(self)})"


class Scaling:
    """Factors that gradients are multiplied by, one after the other."""

    __slots__ = ("_operands", "factors")

    def __init__(self, factors: tuple[Factor, ...] = ()) -> None:
        self.factors = factors
        self._operands: dict[tuple[Format, int, int], Any] = {}

    def operand(self, form: Format, beside: Array, switch: Flag | None = None) -> Any:
        """What an optimizer's step takes as `scaling`: the switch (on, unless a flag says what it is) and the factors."""
        index = -1 if beside.__class__ is np.ndarray else device_of(beside).index
        key = form, index, id(switch)
        if key not in self._operands:
            on: Factor = 1.0 if switch is None else switch.value
            self._operands[key] = _numbers((on, *self.factors), form, index)
        return self._operands[key]


def _numbers(values: tuple[Factor, ...], form: Format, index: int) -> Any:
    if index < 0:
        with np.errstate(all="ignore"):
            return np.array(values, form.storage)
    if all(isinstance(v, float) for v in values):
        return capture.kept(_on_device(values, form, *gpu.queue(index)))
    with gpu.on_device(index):
        numbers = gpu.xp().empty(len(values), form.storage)
        for i, value in enumerate(values):
            numbers[i] = value
    return numbers


@lru_cache(256)
def _on_device(values: tuple[float, ...], form: Format, index: int, stream: int) -> Any:
    """Numbers in the memory of a GPU, where nobody may write to them."""
    with np.errstate(all="ignore"):
        return capture.constant(np.array(values, form.storage), index)


_STORAGE: Any = Tensor.__dict__["storage"]


class ScaledGradient(Tensor):
    """A gradient times factors. `unread()` is the gradient as it was, for who multiplies by itself; `storage` the product, made
    when it is first asked for. GradientError where the gradient was written to in between."""

    __slots__ = ("_source", "_version", "scaling", "squares")

    def __init__(self, source: Tensor, scaling: Scaling) -> None:
        self._source: Tensor | None = source
        self._version = source._version_cell()[0]
        self.scaling = scaling
        self.squares: Part | None = None
        self.dtype, self.requires_grad, self.grad = source.dtype, False, None
        self._node = self._cell = self._hooks = None

    def unread(self) -> Tensor | None:
        """The gradient without the factors, or None once the product has been made."""
        source = self._source
        if source is not None and source._version_cell()[0] != self._version:
            raise GradientError(
                "a gradient was written to in place after it was unscaled or clipped; change p.grad, not the tensor it was before"
            )
        return source

    @property
    def storage(self) -> Any:
        source = self.unread()
        if source is not None:
            values = source.storage
            with beside(values):
                for factor in self.scaling.factors:
                    operands = values, _numbers((factor,), self.dtype, -1 if values.__class__ is np.ndarray
                                                else device_of(values).index).reshape(())  # fmt: skip
                    values = as_array(dispatch.call(_multiply(), (self.dtype, self.dtype), operands, {})[0])
            self.storage = values
        return _STORAGE.__get__(self)

    @storage.setter
    def storage(self, values: Any) -> None:
        self._source = None
        _STORAGE.__set__(self, values)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        return copy.deepcopy(Tensor(self.storage, self.dtype), memo)


@lru_cache(1)
def _multiply() -> Any:
    return registry.find("multiply")


def multiplied(gradients: Sequence[Tensor], factor: Factor) -> list[ScaledGradient]:
    """Gradients in formats that compute, times a factor."""
    made: dict[int, Scaling] = {}
    found = []
    for g in gradients:
        source, before = unread(g)
        if id(before) not in made:
            made[id(before)] = Scaling((*(before.factors if before is not None else ()), factor))
        found.append(ScaledGradient(source, made[id(before)]))
    return found


def unread(gradient: Tensor) -> tuple[Tensor, Scaling | None]:
    """A gradient and the factors that it is still to be multiplied by."""
    if gradient.__class__ is ScaledGradient:
        assert isinstance(gradient, ScaledGradient)
        source = gradient.unread()
        if source is not None:
            return source, gradient.scaling
    return gradient, None


def squares(gradients: Sequence[Tensor]) -> list[Part]:
    """Sums of squares of gradients in formats that compute, in float64, where the gradients lie. What is known is not read
    again."""
    found: list[Part | None] = [getattr(g, "squares", None) if unread(g)[1] is not None else None for g in gradients]
    places, operands, formats = [], [], []
    for i, g in enumerate(gradients):
        if found[i] is None:
            source, scaling = unread(g)
            values = source.storage if source.storage.flags.c_contiguous else copied(source.storage)
            operands.append((values, None if scaling is None else scaling.operand(g.dtype, values)))
            formats.append(g.dtype)
            places.append(i)
    if dispatch.state.special:
        parts: list[Part] = []
        for given, form in zip(operands, formats, strict=True):
            forms = form, None if given[1] is None else form
            parts.append((dispatch.call(sum_of_squares, forms, given, {})[0].reshape(1), 0))
    else:
        parts = multi.squares(operands, formats)
    for i, part in zip(places, parts, strict=True):
        found[i] = part
        g = gradients[i]
        if isinstance(g, ScaledGradient):
            g.squares = part
    return [part for part in found if part is not None]


def total(parts: Sequence[Part]) -> Any:
    """float64[], the sum of sums: on the device where they all lie, or on the host."""
    arrays: dict[int, tuple[Any, list[int]]] = {}
    for array, i in parts:
        arrays.setdefault(id(array), (array, []))[1].append(i)
    sums = []
    for array, places in arrays.values():
        with beside(array):
            whole = len(places) == array.size
            sums.append(array.sum() if whole else sum((array[i] for i in places[1:]), array[places[0]]))
    devices = {device_of(a) for a, _ in arrays.values()}
    if len(devices) == 1 and next(iter(devices)).type == "cuda":
        with beside(sums[0]):
            return sum(sums[1:], sums[0])
    return np.asarray(math.fsum(map(float, sums)))


def all_finite(gradients: Sequence[Tensor]) -> bool | Flag:
    """Whether every value of gradients in formats that compute is finite; a Flag where one device is to find out."""
    wide = [g for g in gradients if g.dtype is float64]  # squares of these may overflow
    told: list[Any] = [total(squares([g for g in gradients if g.dtype is not float64])), *(g.storage for g in wide)]
    finite = []
    for values in told:
        with beside(values):
            finite.append(np.isfinite(values).all())
    known = [f for f in finite if isinstance(f, np.generic)]
    asked = [f for f in finite if not isinstance(f, np.generic)]
    if not all(known):
        return False
    if len({device_of(f) for f in asked}) != 1:
        return all(map(bool, asked))
    with beside(asked[0]):
        return Flag(functools.reduce(operator.and_, asked))
