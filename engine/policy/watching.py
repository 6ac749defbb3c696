"""watch: the first value that is not finite, or the loss that runs away, with its step and place."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from ulpgrad import autograd, dispatch
from ulpgrad.device import beside
from ulpgrad.differentiable import Primitive, prepared
from ulpgrad.errors import ArgumentError, DivergenceError
from ulpgrad.formats import Array, Format
from ulpgrad.ops.creation import values_of
from ulpgrad.policy.tables import LOSSES
from ulpgrad.tensor import Tensor

if TYPE_CHECKING:
    from ulpgrad.nn.module import Module

active: ContextVar[Watch | None] = ContextVar("watch", default=None)


class Event(NamedTuple):
    """What happened first: at which step (counted from 0), where, to what (role), in which format, and the value."""

    step: int
    where: str
    role: str
    format: str | None
    value: float
    message: str

    def error(self) -> DivergenceError:
        return DivergenceError(
            self.message, step=self.step, where=self.where, role=self.role, format=self.format, value=self.value
        )


class Watch:
    """Looks at every op's result, every gradient and every parameter until one is not finite; see `watch`."""

    def __init__(
        self, model: Module | None = None, *, raises: bool = True, gradients: bool = True, growth: float = 1e4
    ) -> None:
        if not growth > 1:
            raise ArgumentError(f"watch: growth={growth!r}: expected a factor above 1")
        self.raises, self.gradients, self.growth = raises, gradients, growth
        self.first: Event | None = None
        self.steps = 0
        self.inside = 0  # functions made of several ops that are running
        self._parameters: list[tuple[str, Tensor]] = []
        self._versions: list[int] = []
        self._losses: dict[str, float] = {}
        self._calls: dict[str, int] = {}
        self._hooks: list[Callable[[], None]] = []
        self._tokens: list[tuple[Token[Any], Token[Any]]] = []
        if model is not None:
            self.follow(model)

    def follow(self, model: Module) -> None:
        """Look at a model's parameters, by their names."""
        self._parameters = list(model.named_parameters())
        self._versions = self._written()

    def __enter__(self) -> Self:
        self._tick()  # first, since it may raise
        around = dispatch.call_policy.get()
        self._tokens.append((active.set(self), dispatch.call_policy.set(around if around is not None else _watched)))
        dispatch.state.count(policies=1)
        if self.gradients:
            for name, p in self._parameters:
                if p.requires_grad:
                    self._hooks.append(p.register_hook(self._hook(f"gradient of {name}", "gradient")))
        return self

    def __exit__(self, *error: Any) -> None:
        for remove in self._hooks:
            remove()
        self._hooks.clear()
        dispatch.state.count(policies=-1)
        token, call = self._tokens.pop()
        dispatch.call_policy.reset(call)
        active.reset(token)
        if not any(error):
            self.look()

    # What it is told

    def saw(self, name: str, out: Tensor, where: str | None = None) -> None:
        """Look at an op's result, and at its gradient when it comes."""
        self._tick()
        if out.dtype.kind != "float" or self.first is not None:
            return
        number = self._calls[name] = self._calls.get(name, -1) + 1
        place = where or f"{name}@{number}"
        self._check(out, place, "activation")
        if self.gradients and out.requires_grad and out._node is not None:
            out.register_hook(self._hook(f"gradient of {place}", "gradient"))
        if name in ("mean", "sum"):
            self.loss(name, out)

    def rounded(self, values: Array, place: str, role: str, form: Format | None) -> None:
        """Look at what a policy rounded."""
        self._tick()
        if self.first is None and not np.isfinite(values).all():
            self._bad(values, place, role, form)

    def look(self) -> None:
        """Look at the parameters now; happens by itself after each step, when the next forward begins or the block ends."""
        for name, p in self._parameters:
            self._check(p, name, "weight")

    def _tick(self) -> None:
        """A step has been made when parameters were written to since the last look."""
        if self._parameters and (written := self._written()) != self._versions:
            self._versions = written
            self.look()
            self.steps += 1
            self._calls.clear()

    def _written(self) -> list[int]:
        return [p._version_cell()[0] for _, p in self._parameters]

    def _hook(self, place: str, role: str) -> Callable[[Tensor], None]:
        def look(g: Tensor) -> None:
            self._check(g, place, role)

        return look

    def _check(self, t: Tensor, place: str, role: str) -> None:
        if self.first is not None:
            return
        values: Array = t.storage if t.dtype.is_native else values_of(t)
        with beside(values):
            if not np.isfinite(values).all():
                self._bad(values, place, role, t.dtype)

    def _bad(self, values: Array, place: str, role: str, form: Format | None) -> None:
        bad = values[~np.isfinite(values)]
        value = float(bad[0])
        self._report(
            place, role, form, value, f"{bad.size} of {values.size} values are not finite, the first is {value}"
        )

    def loss(self, name: str, out: Tensor) -> None:
        """Look at what may be the loss: a number with a gradient."""
        if out.ndim or not out.requires_grad or self.inside or self.first is not None:
            return
        value = float(out.item())
        start = self._losses.setdefault(name, abs(value)) if math.isfinite(value) else math.inf
        if start and math.isfinite(value) and abs(value) > self.growth * start:
            self._report(
                name, "loss", None, value, f"the loss is {value:.4g}, more than {self.growth:g} times the first"
            )

    def _report(self, place: str, role: str, form: Format | None, value: float, what: str) -> None:
        name = None if form is None else form.name
        kind = "" if name is None else f" ({name})"
        message = f"step {self.steps}: {role} of {place}{kind}: {what}".replace(
            "gradient of gradient of", "gradient of"
        )
        self.first = Event(self.steps, place.removeprefix("gradient of "), role, name, value, message)
        if self.raises:
            raise self.first.error()


class _Watched:
    """The call policy of a watch with no Policy in it: ops run as they would, and are looked at."""

    def call(self, primitive: Primitive, tensors: tuple[Any, ...], params: dict[str, Any]) -> tuple[Tensor, ...]:
        name = primitive.op.name
        if autograd.is_in_backward():
            return primitive.plain(tensors, params)
        outs = primitive.plain(prepared(name, *tensors), params)
        watch = active.get()
        if watch is not None:
            watch.saw(name, outs[0])
        return outs

    def whole(self, name: str, function: Callable[..., Any], args: Any, options: Any) -> Any:
        return whole(name, function, args, options)


def whole(name: str, function: Callable[..., Any], args: Any, options: Any) -> Any:
    """Run a function made of several ops; its result, and not one inside it, may be the loss."""
    watch = active.get()
    if watch is None:
        return function(*args, **options)
    watch.inside += 1
    try:
        out = function(*args, **options)
    finally:
        watch.inside -= 1
    if name in LOSSES:
        watch.loss(name, out)
    return out


_watched = _Watched()


def current() -> _Watched | None:
    """The call policy that rounds nothing: that of a watch if there is one."""
    return _watched if active.get() is not None else None


def watch(model: Module | None = None, *, raises: bool = True, gradients: bool = True, growth: float = 1e4) -> Watch:
    """Find where training goes wrong first: a context around it.

        with ug.policy.watch(model) as w:
            train(...)

    Looked at are the results of all ops, gradients of results and parameters, and after each step the parameters of `model`
    (a step is counted when parameters were written to before a forward). The first value that is not finite, or a loss more
    than `growth` times the first one, raises DivergenceError with step, place, role and format; with `raises=False` it is kept
    in `w.first` (None: nothing happened) and training goes on. `gradients=False` leaves gradients out: a GradScaler deals with
    infinite ones itself. Works with and without policies. Costs a pass over everything computed.
    """
    return Watch(model, raises=raises, gradients=gradients, growth=growth)


__all__ = ["Event", "Watch", "watch"]
