"""How a policy takes over calls: which tensors of an op are rounded, to what, and how the place is called."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ulpgrad import autograd, dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.device import beside
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import DivergenceError, FormatError
from ulpgrad.formats import Array, Format, float32, float64
from ulpgrad.ops.creation import astype
from ulpgrad.ops.linalg import ACTIVATIONS
from ulpgrad.ops.manipulation import reshape
from ulpgrad.policy import watching
from ulpgrad.policy.products import Entered, ProductNode, RoundedNode, Rounder, Rules
from ulpgrad.policy.quantizers import Chooser, Grid, Quantizer, everywhere
from ulpgrad.policy.settings import Settings, is_op, matching
from ulpgrad.policy.tables import KEPT, LOW, SELECTS, WIDE
from ulpgrad.random import Generator
from ulpgrad.tensor import Tensor

Mark = tuple[list[int], int, Any, Format]  # a version cell, its count, and the role and format of the grid


class Rounding(NamedTuple):
    """One rounding that a policy made, for `inspect`."""

    where: str
    role: str
    format: str
    shape: tuple[int, ...]


class Calls:
    """The call policy behind a Policy, and what it remembers of a block and of places."""

    def __init__(
        self,
        settings: Settings,
        overrides: Mapping[str, Settings | None],
        everywhere: bool,
        output: Format | None,
        seed: int,
    ) -> None:
        self.settings, self.overrides, self.everywhere, self.output = settings, overrides, everywhere, output
        self.generator = Generator(seed)
        self.steps = 0
        self.patterns = {name: s for name, s in overrides.items() if not is_op(name)}
        self.names: dict[int, tuple[Tensor, str]] = {}  # of parameters, once a model is bound
        self._known: dict[int, tuple[weakref.ref[Tensor], str]] = {}  # weights without a name
        self._numbers = itertools.count()
        self._stateful: dict[str, Any] = {}
        self._unread: dict[str, Any] = {}  # states of places not met yet
        self._calls: dict[str, int] = {}
        self._marks: dict[int, Mark] = {}
        self._entered: dict[tuple[int, int], tuple[Tensor, int, Entered]] = {}  # weights of a block, by settings
        self._last: str | None = None  # the place that was met last
        self._seen: list[Rounding] | None = None

    def begin(self) -> None:
        """Forget what belongs to a block."""
        self._calls.clear()
        self._marks.clear()
        self._entered.clear()

    def name_of(self, p: Tensor, otherwise: str) -> str:
        """The name of a parameter of the bound model."""
        return self.names[id(p)][1] if id(p) in self.names else otherwise

    # What dispatch asks

    def call(self, primitive: Primitive, tensors: tuple[Any, ...], params: dict[str, Any]) -> tuple[Tensor, ...]:
        """Run an op in its formats."""
        if autograd.is_in_backward():
            return primitive.plain(tensors, params)
        name, self._last = primitive.op.name, None
        if name in WIDE:
            tensors = widened(name, tensors)
        if name in LOW and all(t is None or t.dtype.kind == "float" for t in tensors[:3]):
            with beside(tensors[0].storage):
                outs = self._product(primitive, tensors, params)
        else:
            outs = primitive.plain(tensors, params)
            with beside(outs[0].storage):
                outs = self._results(name, tensors, outs)
        watch = watching.active.get()
        if watch is not None:
            watch.saw(name, outs[0], self._last)
        return outs

    def whole(self, name: str, function: Callable[..., Any], args: Any, options: Any) -> Any:
        """Run a function made of several ops as one: only its result is rounded."""
        if autograd.is_in_backward():
            return function(*args, **options)
        token = dispatch.call_policy.set(watching.current())
        try:
            out = watching.whole(name, function, args, options)
        finally:
            dispatch.call_policy.reset(token)
        return self._results(name, (), (out,))[0]

    # Results

    def _results(self, name: str, tensors: tuple[Any, ...], outs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        out = outs[0]
        if out.dtype.kind != "float" or not out.ndim or not self.everywhere:
            return outs
        chosen = self.overrides.get(name, self.settings) if self.overrides else self.settings
        if chosen is None or (name in KEPT and name not in self.overrides):
            return outs
        if name in SELECTS:
            self._pass_mark(tensors, out)
            return outs
        return (self._rounded(name, out, chosen), *outs[1:])

    def _rounded(self, name: str, x: Tensor, chosen: Settings) -> Tensor:
        place = self._place(name, None)
        forward, backward = self._flowing(chosen, "activation", place), self._flowing(chosen, "gradient", place)
        if forward is None and backward is None:
            return x
        return self._node(name, _carried(x), forward, backward, chosen, "activation", place)

    def _node(
        self,
        name: str,
        x: Tensor,
        forward: Quantizer | None,
        backward: Quantizer | None,
        chosen: Settings,
        role: str,
        place: str,
        axis: int = -1,
    ) -> Tensor:
        """A rounding with a node of its own."""
        rounder = self.rounder(place)
        entered = Entered(x.storage, forward, role, rounder, None, chosen.estimator[role])
        grid = entered.along(axis)
        out = Tensor(grid.plain(), x.dtype)
        if x.requires_grad and is_grad_enabled():
            out._node, out.requires_grad = (RoundedNode(f"{name} rounded", x, entered, backward, rounder), 0), True
        if forward is not None and grid.form is not None and grid.scale == 1.0:
            self._mark(out, getattr(chosen, role), grid.form)
        return out

    # Products

    def _product(self, primitive: Primitive, tensors: tuple[Any, ...], params: dict[str, Any]) -> tuple[Tensor, ...]:
        name = primitive.op.name
        weight = _weight_position(name, tensors)
        chosen, place = self._at(name, None if weight is None else tensors[weight])
        if chosen is None or chosen.idle:
            return primitive.plain(tensors, params)
        tensors = tuple(t if t is None or t.dtype.kind != "float" else _carried(t) for t in tensors)
        if name == "attention":
            return self._attention(primitive, tensors, params, chosen, place)
        a, b, *rest = tensors
        activation, params = params.get("activation"), {k: None if k == "activation" else v for k, v in params.items()}
        shape = a.shape
        if name == "linear" and a.ndim not in (0, 2):
            a = reshape(a, (-1, shape[-1]))
        out = self._contracted(primitive, a, b, rest[0] if rest else None, params, chosen, weight, place)
        if name == "linear" and len(shape) not in (0, 2):
            mark = self._marked(out)
            out = reshape(out, (*shape[:-1], out.shape[-1]))
            if mark is not None:
                self._mark(out, *mark)
        if self.output is not None:
            out = astype(out, self.output, copy=False)
        return (out if activation is None else ACTIVATIONS[activation](out),)

    def _contracted(
        self,
        primitive: Primitive,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
        params: dict[str, Any],
        chosen: Settings,
        weight: int | None,
        place: str,
    ) -> Tensor:
        rounder = self.rounder(place)
        inputs, entered = [], []
        for position, t in enumerate((a, b)):
            role = "weight" if position == weight else "activation"
            t, operand = self._enter(
                t, chosen, role, f"{place}, operand {position}" if weight is None else place, rounder
            )
            inputs.append(t)
            entered.append(operand)
        if bias is not None:
            bias = self._bias(bias, chosen, place)
        rules = Rules(primitive, params, (inputs[0].shape, inputs[1].shape), chosen.accumulate)
        gradients = self._gradients(chosen, place)
        y = rules.forward(entered[0], entered[1], None if bias is None else bias.storage)
        result, form = self._result(chosen, place, y, rounder)
        kind = float64 if any(t.dtype is float64 for t in inputs) else float32
        values = y if result is None else result.along(-1).plain()
        out = Tensor(values.astype(kind.storage, copy=False), kind)
        everything = [*inputs, bias] if len(primitive.operands) > 2 else inputs
        if is_grad_enabled() and any(t is not None and t.requires_grad for t in everything):
            estimated = result if result is not None and result.estimate is not None else None
            node = ProductNode(everything, rules, (entered[0], entered[1]), estimated, gradients, weight, rounder)
            out._node, out.requires_grad = (node, 0), True
        if form is not None:
            self._mark(out, chosen.activation, form)
        return out

    def _result(self, chosen: Settings, place: str, y: Array, rounder: Rounder) -> tuple[Entered | None, Format | None]:
        quantizer = self._flowing(chosen, "activation", place)
        if quantizer is None:
            return None, None
        entered = Entered(y, quantizer, "activation", rounder, None, chosen.estimator["activation"])
        return entered, entered.along(-1).form

    def _gradients(self, chosen: Settings, place: str) -> tuple[Quantizer | None, Quantizer | None, Quantizer | None]:
        incoming = self.quantizer(chosen, "gradient", place)
        of_weight = self._flowing(chosen, "gradient", f"{place}, weight")
        return incoming, of_weight, self._flowing(chosen, "gradient", f"{place}, bias")

    def _enter(self, t: Tensor, chosen: Settings, role: str, place: str, rounder: Rounder) -> tuple[Tensor, Entered]:
        """An operand of a product: on a grid already, rounded by a function of its own, or to be rounded."""
        function = chosen.function(role)
        if function is not None:
            t = _unrounded(function, t)
            return t, Entered(t.storage, None, role, rounder)
        given = getattr(chosen, role)
        mark = self._marked(t)
        if role == "activation" and mark is not None and mark[0] is given:
            self._note(place, role, mark[1], t.shape)
            return t, Entered(t.storage, None, role, rounder, mark[1])
        keep = role == "weight" and t.is_leaf
        if keep:
            known = self._entered.get((id(t), id(chosen)))
            if known is not None and known[1] == t._version_cell()[0]:
                return t, known[2]
        key = f"{place}, input" if role == "activation" else place
        entered = Entered(t.storage, self.quantizer(chosen, role, key), role, rounder, None, chosen.estimator[role])
        if keep:
            self._entered[id(t), id(chosen)] = t, t._version_cell()[0], entered
        return t, entered

    def _bias(self, bias: Tensor, chosen: Settings, place: str) -> Tensor:
        function = chosen.function("bias")
        if function is not None:
            return _unrounded(function, bias)
        quantizer = self.quantizer(chosen, "bias", place)
        if quantizer is None:
            return bias
        return self._node("bias", bias, quantizer, None, chosen, "bias", place)

    def _attention(
        self, primitive: Primitive, tensors: tuple[Any, ...], params: dict[str, Any], chosen: Settings, place: str
    ) -> tuple[Tensor, ...]:
        """Queries, keys and values are rounded, and the gradient that comes back; in between it is one kernel. With an
        accumulator it is the products that it consists of."""
        if chosen.accumulate is not None:
            assert primitive.composite is not None
            return (primitive.composite(*tensors, **params),)
        sides = []
        for t, label, axis in zip(tensors[:3], "qkv", (-1, -1, -2), strict=True):
            where = f"{place}, {label}"
            t, entered = self._enter(t, chosen, "activation", where, self.rounder(where))
            rounds = entered.quantizer
            sides.append(t if rounds is None else self._node(label, t, rounds, None, chosen, "activation", where, axis))
        outs = primitive.plain((*sides, *tensors[3:]), params)
        forward, backward = self._flowing(chosen, "activation", place), self.quantizer(chosen, "gradient", place)
        y = self._node("attention", outs[0], forward, backward, chosen, "activation", place)
        return (y if self.output is None else astype(y, self.output, copy=False), *outs[1:])

    # Places

    def _at(self, name: str, weight: Tensor | None) -> tuple[Settings | None, str]:
        """What holds for a product, and its place's name."""
        place = self._place(name, weight)
        if not self.overrides:
            return self.settings, place
        if self.patterns and weight is not None and id(weight) in self.names:
            module = self.names[id(weight)][1].rpartition(".")[0]
            pattern = matching(self.patterns, module)
            if pattern is not None:
                return self.patterns[pattern], place
        return self.overrides.get(name, self.settings), place

    def _place(self, name: str, weight: Tensor | None) -> str:
        """What a place is called: its module, or the op with the number of its weight or its call."""
        self._last = found = self._place_of(name, weight)
        return found

    def _place_of(self, name: str, weight: Tensor | None) -> str:
        if weight is not None and id(weight) in self.names:
            return self.names[id(weight)][1].rpartition(".")[0] or name
        if weight is not None and weight.is_leaf:
            known = self._known.get(id(weight))
            if known is None or known[0]() is not weight:
                known = self._known[id(weight)] = weakref.ref(weight), f"{name}.{next(self._numbers)}"
            return known[1]
        number = self._calls[name] = self._calls.get(name, -1) + 1
        return f"{name}@{number}"

    def quantizer(self, chosen: Settings, role: str, place: str) -> Quantizer | None:
        """What rounds a role at a place; None for what is left alone, or is a function of tensors in the graph."""
        given = getattr(chosen, role)
        if given is None:
            return None
        if isinstance(given, Format):
            return chosen.quantizer(role, self.generator)
        if not isinstance(given, Chooser):
            return _Function(given) if role in ("gradient", "update") else None
        key = f"{role} of {place}"
        found = self._stateful.get(key)
        if found is None:
            found = given.quantizer(role, chosen.rounding[role], chosen.overflow[role], self.generator)
            if key in self._unread:
                found.load_state_dict(self._unread.pop(key))
            self._stateful[key] = found
        return found  # type: ignore[no-any-return]

    def _flowing(self, chosen: Settings, role: str, place: str) -> Quantizer | None:
        """What rounds results and gradients on their way; None where only what enters products is rounded."""
        return self.quantizer(chosen, role, place) if self.everywhere and everywhere(getattr(chosen, role)) else None

    def rounder(self, place: str) -> Rounder:
        """A function that rounds for a place: it says where NaN met a format without it, and is noted and watched."""

        def rounded(quantizer: Quantizer, values: Array, axis: int, role: str) -> Grid:
            try:
                grid = quantizer.round(values, axis)
            except FormatError as error:
                if np.isfinite(values).all():
                    raise
                raise diverged(self.steps, place, role, getattr(quantizer, "form", None), values) from error
            self._note(place, role, grid.form, values.shape)
            watch = watching.active.get()
            if watch is not None:
                watch.rounded(grid.values, place, role, grid.form)
            return grid

        return rounded

    def _note(self, place: str, role: str, form: Format | None, shape: tuple[int, ...]) -> None:
        if self._seen is not None and form is not None:
            self._seen.append(Rounding(place, role, form.name, shape))

    # Grids that tensors lie on

    def _mark(self, t: Tensor, given: Any, form: Format) -> None:
        cell = t._version_cell()
        if len(self._marks) > 10_000:  # a block that never ends
            self._marks.clear()
        self._marks[id(cell)] = cell, cell[0], given, form

    def _marked(self, t: Tensor) -> tuple[Any, Format] | None:
        """The role and format that a tensor was rounded to, if it was not written to since. Views count."""
        cell = t._cell
        mark = None if cell is None else self._marks.get(id(cell))
        return None if mark is None or mark[0] is not cell or mark[1] != cell[0] else (mark[2], mark[3])

    def _pass_mark(self, tensors: tuple[Any, ...], out: Tensor) -> None:
        marks = [self._marked(t) for t in tensors if t is not None and t.dtype.kind == "float"]
        if marks and marks[0] is not None and all(m == marks[0] for m in marks):
            self._mark(out, *marks[0])


def _unrounded(function: Callable[[Tensor], Tensor], t: Tensor) -> Tensor:
    """A function's result, its ops left alone."""
    token = dispatch.call_policy.set(watching.current())
    try:
        return function(t)
    finally:
        dispatch.call_policy.reset(token)


class _Function:
    """A function of a gradient or a parameter in the place of a quantizer."""

    blocks = False
    form = None

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function

    def round(self, values: Array, axis: int = -1) -> Grid:
        kind = float64 if values.dtype == np.float64 else float32
        return Grid(self.function(Tensor(values, kind)).storage)


def diverged(step: int, place: str, role: str, form: Format | None, values: Array) -> DivergenceError:
    """The error for values that are not finite."""
    bad = values[~np.isfinite(values)]
    value = float(bad[0]) if bad.size else float("nan")
    name = None if form is None else form.name
    kind = "" if name is None else f", which {name} does not hold"
    return DivergenceError(
        f"step {step}: {role} of {place}: {bad.size} of {values.size} values are not finite, first {value}{kind}; "
        "watch(model) finds where it began",
        step=step, where=place, role=role, format=name, value=value,
    )  # fmt: skip


def _weight_position(name: str, tensors: tuple[Any, ...]) -> int | None:
    """Which operand is a parameter."""
    if name in ("linear", "conv2d"):
        return 1
    if name != "matmul":
        return None
    return next((i for i in (1, 0) if tensors[i].requires_grad and tensors[i].is_leaf), None)


def _carried(t: Tensor) -> Tensor:
    """A float tensor in float32 or float64."""
    return t if t.dtype in (float32, float64) else astype(t, float32)


def widened(name: str, tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """The delicate ops' operands in float32, if they are narrower."""
    if name not in WIDE:
        return tensors
    return tuple(t if t is None or t.dtype.kind != "float" else _carried(t) for t in tensors)
