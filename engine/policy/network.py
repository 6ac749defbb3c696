"""Policy: the number formats of a whole network, by the role that a tensor plays."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Format, as_format
from ulpgrad.policy import watching
from ulpgrad.policy.calls import Calls, Rounding, widened
from ulpgrad.policy.quantizers import Chooser
from ulpgrad.policy.settings import matching, overridden, settings
from ulpgrad.policy.tables import ROLES
from ulpgrad.policy.updates import Updates

if TYPE_CHECKING:
    from ulpgrad.nn.module import Module
    from ulpgrad.optim.optimizer import Optimizer
    from ulpgrad.policy.scaler import GradScaler


class Policy(Calls, contextlib.ContextDecorator):
    """The number formats of a whole network, by role: a context for forward, and `step` for the update.

        q = ug.Q(3, 12)
        policy = ug.policy.Policy(weight=q, activation=q, gradient=q, update=q,
                                  rounding={"update": "stochastic"}, accumulate="int64")
        for x, y in batches:
            with policy:
                loss = ug.cross_entropy(model(x), y)
            model.zero_grad()
            loss.backward()
            policy.step(optimizer)

    Roles, each a format (or its name), None (left alone), a DynamicFixed or Scaled, or a function of a tensor (see `dorefa`):

    - `weight`: parameters that enter matmul, linear, conv2d and attention; `bias`: theirs ("weight": as the weights, where
      that is one float or fixed-point format, or a DynamicFixed).
    - `activation`: what else enters these products, and the results of all ops but losses, sums, `log_softmax` and numbers
      without axes.
    - `gradient`: gradients on their way back, wherever activations are rounded, and those that reach a parameter. Backward
      rounds as forward was told to, wherever it is called.
    - `accumulate`: how products add up. None: float32. "int32", "int64" or an integer Accumulator: the codes of fixed-point
      operands on integer kernels, exactly (a product with an operand in no fixed point, such as a gradient left alone, stays
      in float32). Else what `ulpgrad.matmul(accumulate=)` takes: a float format, or an accumulator of one.
    - `update`: parameters after `step`; see there. None keeps them as they are: float32 masters.

    Values are carried in float32 (float64 where an operand is), on the grids of their formats, so that products are exact in
    their operands. Block formats, Scaled and functions round only what enters a product: blocks lie along the axis that it
    sums over (the channels of conv2d, the batch for gradients of weights), made anew for each of forward and backward's
    products; `everywhere=False` asks the same of every format. `output=` then converts products' results.

    `rounding`, `overflow` and `estimator` hold for all roles or, as dicts, by role. Overflow saturates by default, which is
    what training wants; conversions on request default to IEEE's way. "ieee" lets a GradScaler see infinities.
    `estimator`: the gradient through a rounding: "straight_through", "clipped" (zero where it saturated), or a function
    (g, x, format) -> g. Stochastic rounding draws from the policy's own generator, of `seed`.

    `overrides`: by op name, or by pattern of module names (known once `bind(model)` was called): None leaves these ops alone,
    a dict replaces roles: `{"softmax": None, "linear": {"gradient": "float16"}, "head*": None}`. Module names hold for ops
    that take that module's parameters.

    `watch=True` looks for the first value that is not finite (see `watch`). NaN into a format without one, and parameters
    that are not finite after `step`, raise DivergenceError in any case: training does not go on in silence.

    Policies nest, the inner one holds; `enabled=False` switches the outer one off. They hold for this thread (context) only.
    A place with a state of its own (Scaled, DynamicFixed) is known by the weight used there, or else by the order of calls:
    enter the block once a step. Raises FormatError for a format that cannot be in a role, ArgumentError for unknown roles.
    """

    def __init__(
        self,
        *,
        weight: Any = None,
        activation: Any = None,
        gradient: Any = None,
        accumulate: Any = None,
        update: Any = None,
        bias: Any = "weight",
        rounding: str | Mapping[str, str] = "nearest_even",
        overflow: str | Mapping[str, str] = "saturate",
        estimator: Any = "straight_through",
        overrides: Mapping[str, Any] | None = None,
        everywhere: bool = True,
        output: Any = None,
        seed: int = 0,
        watch: bool = False,
        enabled: bool = True,
    ) -> None:
        what = type(self).__name__
        given = {"weight": weight, "activation": activation, "gradient": gradient, "accumulate": accumulate, "update": update,
                 "bias": _bias(weight) if isinstance(bias, str) and bias == "weight" else bias,
                 "rounding": rounding, "overflow": overflow, "estimator": estimator}  # fmt: skip
        base = settings(what, given)
        wide = None if output is None else as_format(output)
        if wide is not None and wide.kind != "float":
            raise FormatError(f"{what}: output={wide.name}: expected a float format")
        super().__init__(base, overridden(what, overrides, base), everywhere, wide, seed)
        self.enabled = enabled
        self.watcher = watching.Watch() if watch else None
        self._updates = Updates(self)
        self._active = threading.local()

    def __repr__(self) -> str:
        chosen = self.settings
        roles = {role: getattr(chosen, role) for role in ROLES if role != "accumulate"}
        roles["accumulate"] = None if chosen.accumulate is None else chosen.accumulate.given
        given = ", ".join(f"{role}={value}" for role, value in roles.items() if value is not None)
        return f"{type(self).__name__}({given})"

    # A context

    def _recreate_cm(self) -> Self:
        return self

    def __enter__(self) -> Self:
        if self.patterns and not self.names:
            raise ArgumentError(
                f"{type(self).__name__}: overrides name modules ({', '.join(self.patterns)}): call policy.bind(model) first"
            )
        stack = self._active.__dict__.setdefault("stack", [])
        if not stack:
            self.begin()
        taken = self if self.enabled else watching.current()
        tokens = dispatch.call_policy.set(taken), dispatch.operand_policy.set(widened if self.enabled else None)
        dispatch.state.count(policies=1)
        watched = self.watcher if self.enabled and watching.active.get() is None else None
        stack.append((tokens, None))
        if watched is not None:
            try:
                watched.__enter__()
            except BaseException:  # parameters that are not finite: the block is not entered
                self.__exit__(None)
                raise
            stack[-1] = tokens, watched
        return self

    def __exit__(self, *error: Any) -> None:
        tokens, watched = self._active.stack.pop()
        try:
            if watched is not None:
                watched.__exit__(*error)
        finally:
            dispatch.state.count(policies=-1)
            dispatch.operand_policy.reset(tokens[1])
            dispatch.call_policy.reset(tokens[0])
            if not self._active.stack:
                self.begin()

    @contextlib.contextmanager
    def inspect(self) -> Iterator[list[Rounding]]:
        """A list that fills with every rounding made while the block lasts: where, role, format and shape. What lies on a
        grid already when it enters a product is listed there too."""
        seen: list[Rounding] = []
        before, self._seen = self._seen, seen
        try:
            yield seen
        finally:
            self._seen = before

    # A network and its training

    def bind(self, model: Module) -> Self:
        """Learn the names of a model's parameters: for overrides by module, and for what is reported and saved. Returns self.
        ArgumentError where an override fits no op and no module."""
        self.names = {id(p): (p, name) for name, p in model.named_parameters()}
        if self.watcher is not None:
            self.watcher.follow(model)
        modules = [name for name, _ in model.named_modules() if name]
        for pattern in self.patterns:
            if not any(matching({pattern: None}, name) for name in modules):
                raise ArgumentError(
                    f"{type(self).__name__}: overrides[{pattern!r}] fits no op and none of {', '.join(modules)}"
                )
        return self

    def step(self, optimizer: Optimizer, scaler: GradScaler | None = None) -> bool:
        """Let an optimizer (or its GradScaler) step, then round what it wrote to the `update` format, in place. Returns whether
        it stepped.

        Parameters not on that grid yet are rounded to nearest first. DivergenceError, naming the first parameter, where one
        is not finite after the step. Overrides by module may have an `update` of their own.
        """
        self._calls.clear()
        stepped = self._updates.step(optimizer, scaler)
        self.steps += 1
        return stepped

    def state_dict(self) -> dict[str, Any]:
        """Steps, the random generator, and the state of every place that has one, in plain numbers."""
        places = {key: q.state_dict() for key, q in self._stateful.items()}
        return {
            "steps": self.steps,
            "generator": dict(self.generator.get_state()),
            "places": {**self._unread, **places},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; places not met yet take theirs up when they are. ArgumentError for anything
        else."""
        if not isinstance(state, Mapping) or state.keys() != {"steps", "generator", "places"}:
            raise ArgumentError(
                f"{type(self).__name__}: expected a state from state_dict(), with steps, generator and places"
            )
        self.generator.set_state(state["generator"])
        self.steps, self._unread, self._stateful = int(state["steps"]), dict(state["places"]), {}


def _bias(weight: Any) -> Any:
    """What biases are rounded to where they follow the weights."""
    if weight is None or isinstance(weight, Chooser):
        return weight if getattr(weight, "update_bits", None) is not None else None
    if callable(weight) and not isinstance(weight, Format | type):
        return None
    form = as_format(weight)
    return None if form.kind == "block" else form


__all__ = ["Policy", "Rounding"]
