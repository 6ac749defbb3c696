"""Who takes part in a cell: what dispatch would run, any rung of the ladder, and the peers."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ulpgrad import dispatch, ops
from ulpgrad.bench import shapes
from ulpgrad.bench.shapes import Problem
from ulpgrad.bench.suite.cells import CALIBRATED, Cell, named
from ulpgrad.bench.suite.record import OURS
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import UlpgradError
from ulpgrad.formats import Array, Format, float64
from ulpgrad.kernels import registry
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op, Sample
from ulpgrad.ops.common import as_tensor
from ulpgrad.quantization.calibrate import calibrate
from ulpgrad.tensor import Tensor

Results = tuple[Array, ...]
Some = tuple[Array | None, ...]  # of the results: None for one that is left out


@dataclass(frozen=True)
class Contender:
    """`call(*operands())` does the work; `values` takes what it returns to one exact array for each result.

    It may give some of the op's results only, None for one that is left out; none at all where it has checked them itself.
    `counted`: whether Python sees the memory it takes. `first`: seconds of the first call, where it has been made already.
    """

    name: str
    call: Callable[..., Any]
    operands: Callable[[], tuple[Any, ...]]
    values: Callable[[Any], Some]
    rung: str | None = None
    chosen: bool = False
    counted: bool = False
    first: float | None = None

    @property
    def label(self) -> str:
        """Its name, and its rung."""
        return labelled(self.name, self.rung)


@dataclass(frozen=True)
class Refusal:
    """Someone who takes no part, and why."""

    name: str
    state: Any
    reason: str
    rung: str | None = None


def labelled(name: str, rung: str | None) -> str:
    """A contender in one word or two."""
    return f"{name} {rung}" if rung else name


class Task:
    """A cell with its operands drawn: what contenders are given, and what is right."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self.cell, self.op, self.seed = cell, registry.find(cell.op), seed
        self.sample: Sample = shapes.sample(self.op, cell.size, seed)
        self.form: Format = named(cell.format) if cell.format not in CALIBRATED else self._calibrated(
            *[a for a in self.sample.arrays if a is not None and a.dtype.kind == "f"])  # fmt: skip
        if self.form.routed:
            self.op.takes([shapes.default_format(self.op)])

    def _calibrated(self, *values: Array) -> Format:
        """Affine integers that hold all of these: with zero in the middle, or where it lies."""
        base, every = CALIBRATED[self.cell.format], [np.ravel(a) for a in values] or [np.zeros(1)]
        return calibrate(np.concatenate(every), base=base, symmetric=base == "int8")

    @cached_property
    def problem(self) -> Problem:
        """The call on stored arrays. A format that has no kernels of its own is given to no kernel: see `tensors`."""
        form = shapes.default_format(self.op) if self.form.routed else self.form
        return shapes.in_format(self.op, self.sample, form)

    @cached_property
    def params(self) -> dict[str, Any]:
        return self.problem.params

    def arrays(self) -> tuple[Any, ...]:
        """Stored operands, in memory of their own each time."""
        return tuple(None if a is None else a.copy(order="K") for a in self.problem.arrays)

    def forward(self, op: str) -> Problem:
        """The problem of an op whose gradient this one is: the operands that its own were made of."""
        found = registry.find(op)
        return shapes.in_format(found, shapes.sample(found, self.cell.size, self.seed), self.form)

    def tensors(self) -> tuple[Tensor | None, ...]:
        """The same as tensors, in the cell's format where that has arithmetic of its own."""
        made = []
        for a, f in zip(self.arrays(), self.problem.formats, strict=True):
            t = None if a is None or f is None else Tensor(a, f)
            if self.form.routed and t is not None and t.dtype.kind == "float":
                own = self._calibrated(np.asarray(a)) if self.cell.format in CALIBRATED else self.form
                t = t.to(own)
            made.append(t)
        return tuple(made)

    @cached_property
    def exact(self) -> tuple[Any, ...]:
        """What the operands stand for once they are stored."""
        if self.form.routed:
            return tuple(None if t is None else exactly(t) for t in self.tensors())
        pairs = zip(self.problem.arrays, self.problem.formats, strict=True)
        return tuple(None if a is None or f is None else f.exact(a) for a, f in pairs)

    def reference(self, operands: tuple[Any, ...]) -> Results:
        """The op's definition on exact operands."""
        with np.errstate(all="ignore"):
            found = self.op.reference(*[None if a is None else a.copy() for a in operands], **self.params)
        return tuple(np.asarray(r) for r in found) if isinstance(found, tuple) else (np.asarray(found),)

    @cached_property
    def expected(self) -> Results:
        """What is right for the operands as they are stored."""
        return self.reference(self.exact)

    @cached_property
    def formats(self) -> tuple[Format, ...]:
        """Of the results of the ordinary kernels."""
        return self.op.result_formats(dispatch._promoted(self.op, self.problem.formats), self.params)

    def returned(self, returned: Any) -> tuple[Format, ...]:
        """The formats of what a call gave: a routed one's arithmetic may give another, blocks float32."""
        if not self.form.routed:
            return self.formats
        first = returned[0] if isinstance(returned, tuple) else returned
        return (first.dtype if isinstance(first, Tensor) else self.form,)

    def stored(self, returned: Any) -> Results:
        """What kernels return, as exact values."""
        several = returned if isinstance(returned, tuple) and len(self.formats) > 1 else (returned,)
        return tuple(np.asarray(f.exact(np.asarray(r))) for f, r in zip(self.formats, several, strict=True))


def exactly(t: Tensor) -> Array:
    """A tensor's values: float64, or as they are where they are no reals."""
    return np.asarray(t.to(float64).numpy() if t.dtype.routed else t.dtype.exact(t.storage))


def ours(
    task: Task, which: str, without: Sequence[str] = (), told: Callable[[str], None] = lambda label: None
) -> list[Contender | Refusal]:
    """What dispatch chooses ("best"), every rung ("all"), or those named with commas between them; none whose label is in
    `without`. `told` is called with the label of the one that is called to see how it can be."""
    if task.form.routed:
        told(OURS)
        return [] if OURS in without else [_routed(task)]
    request = Request(task.op, task.cell.device, dispatch._promoted(task.op, task.problem.formats),
                      task.problem.arrays, task.params)  # fmt: skip
    taken, _ = registry.select(request)
    wanted = [name.strip() for name in which.split(",")]
    found: list[Contender | Refusal] = []
    for rung in registry.ladder(task.op, task.cell.device):
        if labelled(OURS, rung.name) in without:
            continue
        if rung is taken and (wanted[0] in ("best", "all") or rung.name in wanted):
            told(labelled(OURS, rung.name))
            found.append(_chosen(task, rung))
        elif which == "all" or rung.name in wanted:
            refusal = rung.choose(request)[1]
            found.append(Refusal(OURS, "refused", refusal, rung.name) if refusal else _pinned(task, rung))
    return found


def _chosen(task: Task, rung: Rung) -> Contender:
    """The call as a user makes it, through the public function where one comes down to just this op; else through dispatch."""
    op, formats, params = task.op, task.problem.formats, task.params
    public = _public(task)
    if public is not None:
        function, first = public
        return Contender(OURS, partial(function, **params), task.tensors, _tensors, rung.name, True, True, first)

    def call(*arrays: Any) -> Any:
        return dispatch.call(op, formats, arrays, params)[0]

    return Contender(OURS, call, task.arrays, task.stored, rung.name, True, True)


def _tensors(returned: Any) -> Results:
    """What public functions return."""
    several = returned if isinstance(returned, tuple) else (returned,)
    return tuple(exactly(as_tensor(t)) for t in several)


def _public(task: Task) -> tuple[Callable[..., Any], float] | None:
    """The function of the op's name, if it takes the op's operands and parameters as they are, and is one call of it; and
    the seconds of that first call."""
    function = getattr(ops, task.op.name, None)
    if not callable(function) or task.op.mutates or not set(task.params) <= set(inspect.signature(function).parameters):
        return None
    tensors, begin = task.tensors(), time.perf_counter()
    try:
        heard = dispatch.calls_of(lambda: function(*tensors, **task.params))
    except (UlpgradError, TypeError):
        return None
    first = time.perf_counter() - begin
    return (function, first) if [call[0] for call in heard] == [task.op] else None


def _pinned(task: Task, rung: Rung) -> Contender:
    with dispatch.use(**{task.op.name: rung.name}):
        run = dispatch.make_plan(task.op, task.cell.device, task.problem.formats, task.problem.arrays, task.params).run
    return Contender(OURS, partial(run, **task.params), task.arrays, task.stored, rung.name, False, True)


def _routed(task: Task) -> Contender | Refusal:
    """A format whose arithmetic is not the ordinary kernels': the public function, whatever that is made of, or the op itself
    on tensors where the function has other arguments."""
    function = getattr(ops, task.op.name, None)
    failure = f"no function of tensors makes {task.op.name} of {task.cell.format}"
    for call in (function, primitive(task.op)):
        if not callable(call):
            continue
        tensors, begin = task.tensors(), time.perf_counter()
        try:
            call(*tensors, **task.params)
        except (
            UlpgradError
        ) as error:  # the op itself says what it lacks, a function with other arguments what those should be
            failure = str(error)
        except TypeError:
            continue
        else:
            first = time.perf_counter() - begin
            return Contender(OURS, partial(call, **task.params), task.tensors, _tensors, None, True, True, first)
    return Refusal(OURS, "refused", failure)


def primitive(op: Op) -> Primitive | None:
    """An op as it is called on tensors; None where only kernels call it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("ulpgrad.ops."):
            for value in vars(module).values():
                if isinstance(value, Primitive) and value.op is op:
                    return value
    return None


__all__ = ["Contender", "Refusal", "Results", "Some", "Task", "exactly", "labelled", "ours", "primitive"]
