"""Where dispatch and autograd meet: an op with its gradient rules, data movement with its way back, and `Function`.

A gradient rule says by its parameter names what it needs: `g` (the gradient of the result), operands, `y` and further
outputs, `x_shape` for the shape of operand x, `needed` (which operands want a gradient, for a joint rule), and the call's
parameters. Only what some needed rule names is kept:

    multiply = Primitive(spec.multiply, "a b", gradients={"a": lambda g, b: g * b, "b": lambda g, a: g * a})
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ulpgrad import autograd, dispatch
from ulpgrad.autograd import Node, Saved, is_grad_enabled
from ulpgrad.errors import FormatError, GradientError
from ulpgrad.formats import Format, gradient_format
from ulpgrad.kernels import native
from ulpgrad.kernels.spec import Op
from ulpgrad.remembered import Remembered
from ulpgrad.tensor import Tensor

Rule = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])
Places = tuple[tuple[str, int], ...]


class PlainCall(NamedTuple):
    """A call that ran on operands as they are."""

    primitive: Primitive
    tensors: Sequence[Tensor | None]
    outs: tuple[Tensor, ...]
    params: dict[str, Any]


class _PlainCalls:
    """The last of these calls, as long as somebody listens (`remembered`)."""

    def __init__(self) -> None:
        self.listeners = 0
        self.last: PlainCall | None = None
        self.numbers: list[Tensor] = []  # operands made of numbers among the arguments
        self.defaults = 0  # formats that were the default one: the same call may mean another one later

    def __enter__(self) -> _PlainCalls:
        self.listeners += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.listeners -= 1
        self.last, self.numbers, self.defaults = None, [], 0


plain_calls = _PlainCalls()


class Primitive(Remembered):
    """An op that can be called on tensors. The first output is differentiable; further ones are saved statistics.

    - `gradients`: operand name -> rule giving that operand's gradient.
    - `joint`: one rule that gives all operands' gradients as a tuple, where they share work.
    - `composite`: the same function written with other differentiable ops. Needed where the rules use kernels that have
      no gradient of their own: second derivatives then go through it.
    """

    def __init__(
        self,
        op: Op,
        operands: str,
        outputs: str = "y",
        *,
        gradients: Mapping[str, Rule] | None = None,
        joint: Rule | None = None,
        composite: Callable[..., Tensor] | None = None,
    ) -> None:
        super().__init__(self._first)
        self.op = op
        self.operands = tuple(operands.split())
        self.outputs = tuple(outputs.split())
        self.joint = joint
        self.composite = composite
        self.rules = dict(gradients or {})
        self.reads = {name: _parameters(rule) for name, rule in self.rules.items()}
        self._needs: dict[int, tuple[Places, Places]] = {}

    if TYPE_CHECKING:

        def __call__(self, *tensors: Tensor | None, **params: Any) -> Tensor: ...

    @property
    def has_rules(self) -> bool:
        """Whether gradients are given as rules, and not only through the composite."""
        return bool(self.rules) or self.joint is not None

    def __repr__(self) -> str:
        return f"<Primitive {self.op.name}>"

    def _first(self, *tensors: Tensor | None, **params: Any) -> Tensor:
        """What calling it does: run the op; the (first) output."""
        return self._outputs(tensors, params)[0]

    def every(self, *tensors: Tensor | None, **params: Any) -> tuple[Tensor, ...]:
        """Run the op; all outputs."""
        return self._outputs(tensors, params)

    def _outputs(self, tensors: tuple[Tensor | None, ...], params: dict[str, Any]) -> tuple[Tensor, ...]:
        if dispatch.state.special:
            policy = dispatch.call_policy.get()
            if policy is not None:
                return policy.call(self, tensors, params)
            tensors = prepared(self.op.name, *tensors)
        return self.plain(tensors, params)

    def plain(self, tensors: Sequence[Tensor | None], params: dict[str, Any]) -> tuple[Tensor, ...]:
        """Run and record the op on operands as they are, whatever policy is active."""
        arrays: list[Any] = []
        formats: list[Format | None] = []
        recorded = routed = False
        for t in tensors:
            if t is None:
                arrays.append(None)
                formats.append(None)
            else:
                arrays.append(t.storage)
                form = t.dtype
                formats.append(form)
                recorded, routed = recorded or t.requires_grad, routed or form.routed
        if routed:
            return arithmetic_of(formats)(self, tensors, params)
        result, forms = dispatch.call(self.op, tuple(formats), tuple(arrays), params)
        if len(forms) == 1:
            outs: tuple[Tensor, ...] = (Tensor(result, forms[0]),)
        else:
            outs = tuple([Tensor(r, f) for r, f in zip(result, forms, strict=True)])
        if recorded:
            self.record(tensors, outs, params)
        if plain_calls.listeners:
            plain_calls.last = PlainCall(self, tensors, outs, params)
        return outs

    def record(self, tensors: Sequence[Tensor | None], outs: tuple[Tensor, ...], params: dict[str, Any]) -> None:
        """Tie the first output to a new node if an input requires a gradient."""
        mask, bit = 0, 1
        for t in tensors:
            if t is not None and t.requires_grad:
                mask |= bit
            bit <<= 1
        if mask and outs[0].dtype.differentiable and is_grad_enabled():
            outs[0]._node = (_OpNode(self, tensors, outs, params, self.needs(mask)), 0)
            outs[0].requires_grad = True

    def needs(self, mask: int) -> tuple[Places, Places]:
        """Operands and outputs, by name and position, that the rules of the operands in a bit mask read."""
        return self._needs.get(mask) or self._needed(mask)

    def _needed(self, mask: int) -> tuple[Places, Places]:
        names: set[str] = set(_parameters(self.joint)) if self.joint is not None else set()
        for position, name in enumerate(self.operands):
            if mask >> position & 1:
                names.update(self.reads.get(name, ()))
        if self.composite is not None:
            names.update(self.operands)
        found = tuple(tuple((n, i) for i, n in enumerate(of) if n in names) for of in (self.operands, self.outputs))
        self._needs[mask] = found[0], found[1]
        return self._needs[mask]


# The arithmetic of number systems that ordinary kernels do not compute in, by a format's kind: it gets the primitive, its
# operands and parameters, and gives all outputs. Fixed point comes before the others, where operands are mixed.
Arithmetic = Callable[["Primitive", Sequence["Tensor | None"], dict[str, Any]], "tuple[Tensor, ...]"]
arithmetic: dict[str, Arithmetic] = {}


def arithmetic_of(formats: Sequence[Format | None]) -> Arithmetic:
    """The arithmetic that a call's operands ask for."""
    kinds = {form.kind for form in formats if form is not None and form.routed}
    kind = "fixed" if "fixed" in kinds else "affine" if "affine" in kinds else kinds.pop()
    if kind == "fixed" and kind not in arithmetic:
        from ulpgrad import fixed  # noqa: F401  enters itself

    found = arithmetic.get(kind)
    if found is None:
        names = ", ".join(form.name for form in formats if form is not None)
        raise FormatError(f"no arithmetic for {kind} formats ({names}): convert the operands with .to(float32)")
    return found


def prepared(name: str, *tensors: Tensor | None) -> tuple[Any, ...]:
    """Operands in the formats that the active policy wants for an op, or a function made of several, of this name."""
    policy = dispatch.operand_policy.get() if dispatch.state.special else None
    return tensors if policy is None else policy(name, tensors)


def whole(function: F) -> F:
    """For a function made of several ops that a policy is to see as one op of the function's name."""
    name = function.__name__

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        policy = dispatch.call_policy.get() if dispatch.state.special else None
        if policy is None:
            return function(*args, **options)
        return policy.whole(name, function, args, options)

    return call  # type: ignore[return-value]


def _parameters(rule: Rule) -> tuple[str, ...]:
    """What a rule reads: its parameters' names, or what its attribute `reads` says."""
    reads: tuple[str, ...] | None = getattr(rule, "reads", None)
    return reads if reads is not None else rule.__code__.co_varnames[: rule.__code__.co_argcount]


class _OpNode(Node):
    """A recorded call of a Primitive."""

    __slots__ = ("params", "primitive", "saved")

    def __init__(
        self,
        primitive: Primitive,
        tensors: Sequence[Tensor | None],
        outs: tuple[Tensor, ...],
        params: dict[str, Any],
        needed: tuple[Places, Places],
    ) -> None:
        super().__init__(primitive.op.name, tensors)
        self.primitive, self.params = primitive, params
        self.saved: dict[str, Saved | None] | None = {}
        for name, i in needed[0]:
            operand = tensors[i] if i < len(tensors) else None
            self.saved[name] = None if operand is None else Saved(operand)
        for name, i in needed[1]:
            self.saved[name] = Saved(outs[i].detach())  # not the output itself: it holds this node

    def value(self, name: str, gradient: Tensor | None) -> Any:
        """What a rule's parameter of that name stands for."""
        if name == "g":
            return gradient
        if name == "needed":
            return tuple(edge is not None for edge in self.edges)
        if name in self.params:
            return self.params[name]
        if name.endswith("_shape"):
            return self.operands[self.primitive.operands.index(name[:-6])][0]
        assert self.saved is not None
        saved = self.saved[name]
        if saved is None:
            return None
        tensor = saved.get(self.name)
        if name == self.primitive.outputs[0] and is_grad_enabled():
            tensor = tensor.detach()
            tensor._node, tensor.requires_grad = (self, 0), True
        return tensor

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        primitive, g = self.primitive, gradients[0]
        if self.saved is None:
            raise GradientError(
                f"backward of {self.name}: the graph has been freed by an earlier backward; pass retain_graph=True there"
            )
        if primitive.composite is not None and (is_grad_enabled() or not primitive.has_rules):
            return self._through_composite(g)
        if primitive.joint is not None:
            return tuple(primitive.joint(*[self.value(n, g) for n in _parameters(primitive.joint)]))
        for name, edge in zip(primitive.operands, self.edges, strict=False):
            if edge is not None and name not in primitive.rules:
                raise GradientError(
                    f"{self.name} has no gradient for {name!r}: detach it, or wrap the call in ulpgrad.Function"
                )
        return [
            None if edge is None else primitive.rules[name](*[self.value(n, g) for n in primitive.reads[name]])
            for name, edge in zip(primitive.operands, self.edges, strict=False)
        ]

    def _through_composite(self, g: Tensor | None) -> Sequence[Tensor | None]:
        """Gradients that can be differentiated again: of the composite, on stand-ins so that inputs which depend on each
        other are told apart."""
        assert self.primitive.composite is not None
        inputs = [self.value(name, g) for name in self.primitive.operands[: len(self.edges)]]
        again = is_grad_enabled()
        with autograd.enable_grad():
            stand_ins = [t if edge is None else alias(t) for t, edge in zip(inputs, self.edges, strict=True)]
            result = self.primitive.composite(*stand_ins, **self.params)
        wanted = [s for s, edge in zip(stand_ins, self.edges, strict=True) if edge is not None]
        found = iter(autograd.grad(result, wanted, g, create_graph=again, allow_unused=True))
        return [None if edge is None else next(found) for edge in self.edges]

    def free(self) -> None:
        self.saved = None

    @property
    def freed(self) -> bool:
        return self.saved is None


def _learn(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, ...]:
    """What a remembered function gives; and, if that is one op's result on tensors among the arguments, how to come to it:
    the kernel, its results' formats, where each operand is found, the parameters, and what the node is made of."""
    with plain_calls as calls:
        out = function(*args, **options)
        call, numbers, defaults = calls.last, calls.numbers, calls.defaults
    if call is None or out is not call.outs[0] or defaults:
        return (out,)
    primitive, tensors, _, params = call
    given = {id(a): i for i, a in enumerate((*args, *options.values()))}
    known = {id(t) for t in numbers}
    if any(t is not None and id(t) not in given and id(t) not in known for t in tensors):
        return (out,)
    arrays = tuple(None if t is None else t.storage for t in tensors)
    plan = dispatch.plan(primitive.op, tuple(None if t is None else t.dtype for t in tensors), arrays, params)
    places = tuple(t if t is None else given.get(id(t), t) for t in tensors)
    node = None
    if out.requires_grad:
        mask = sum(1 << i for i, t in enumerate(tensors) if t is not None and t.requires_grad)
        node = primitive, primitive.op.name, autograd.operands_of(tensors), *primitive.needs(mask)
    return out, _from_here(plan.run), plan.formats, places, params, node


def _from_here(run: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's own functions, called by ours: their warnings are silenced by the module that calls them."""
    return (lambda *arrays, **params: run(*arrays, **params)) if isinstance(run, np.ufunc) else run


if native.missing() is None:
    native.module().remember(
        Tensor, Saved, _OpNode, Format, dispatch.state, autograd.recording, autograd.sequence, _learn
    )


class _MoveNode(Node):
    """A recorded movement of data: values change place, not themselves. `back` moves a gradient to the inputs."""

    def __init__(self, name: str, inputs: Sequence[Tensor | None], back: Callable[[Tensor], Any]) -> None:
        super().__init__(name, inputs)
        self.back = back

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        found = self.back(gradients[0])  # type: ignore[arg-type]
        return found if isinstance(found, (tuple, list)) else (found,)


def moved(
    name: str, inputs: Sequence[Tensor], storage: Any, back: Callable[[Tensor], Any], *, view: bool = False
) -> Tensor:
    """The result of moving data: `storage` in the format of the inputs, with `back` from its gradient to theirs.

    `view` says that the storage may share memory with the (single) input, so that writes are seen through both.
    """
    form = inputs[0].dtype
    if form.routed and name not in ("copy", "alias"):
        check_movable(name, form, inputs)
    out = Tensor(storage, form)
    if view:
        out._cell = inputs[0]._version_cell()
    for t in inputs:
        if t.requires_grad and is_grad_enabled():
            out._node = (_MoveNode(name, inputs, back), 0)
            out.requires_grad = True
            break
    return out


def check_movable(name: str, form: Format, inputs: Sequence[Tensor]) -> None:
    """FormatError where moving codes would part them from their scales."""
    if form.kind == "block" or getattr(form, "axis", None) is not None:
        raise FormatError(
            f"{name}: {form.name} has scales along an axis, which would not move with it: use .to(float32)"
        )
    if any(t.dtype is not form for t in inputs):
        names = ", ".join(t.dtype.name for t in inputs)
        raise FormatError(f"{name}: operands of different formats ({names}): convert them to one with .to(format)")


def alias(x: Tensor) -> Tensor:
    """The same values as a new place in the graph."""
    return moved("alias", [x], x.storage, lambda g: g, view=True)


class Context:
    """What a Function keeps between forward and backward: `save_for_backward(*tensors)`, and any attribute."""

    def __init__(self) -> None:
        self._saved: list[Saved] = []
        self._outputs: dict[int, int] = {}  # positions of saved tensors that are outputs of forward
        self._node: weakref.ref[Node] | None = None  # weak, since the node holds this context
        self._name = "Function"
        self.needs_input_grad: tuple[bool, ...] = ()

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep tensors; writing to them in place before backward raises GradientError."""
        self._saved = [Saved(t) for t in tensors]

    @property
    def saved_tensors(self) -> tuple[Tensor, ...]:
        """What was saved. An output of forward comes with its place in the graph, so that `backward` can be differentiated."""
        tensors = [s.get(self._name) for s in self._saved]
        node = self._node() if self._node is not None and is_grad_enabled() else None
        for position, index in self._outputs.items() if node is not None else ():
            tensors[position] = tensors[position].detach()
            tensors[position]._node, tensors[position].requires_grad = (node, index), True  # type: ignore[assignment]
        return tuple(tensors)


class Function:
    """A differentiable function of one's own.

    Subclass it with two static methods and call `apply`:

        class Square(Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return 2 * g * x

    `forward` runs unrecorded and returns a Tensor or a tuple of them; `backward` gets one gradient per output (zeros where
    an output was not used) and returns one per argument of `apply`, None for those without. Written with ulpgrad ops,
    `backward` can itself be differentiated.
    """

    @staticmethod
    def forward(ctx: Context, *args: Any) -> Any:
        raise NotImplementedError("a Function needs a static forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Context, *gradients: Tensor) -> Any:
        raise GradientError("this Function has no gradient: give it a static backward(ctx, *gradients)")

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run `forward` and record the call."""
        ctx = Context()
        ctx._name = cls.__name__
        tensors = [a if isinstance(a, Tensor) else None for a in args]
        ctx.needs_input_grad = tuple(t is not None and t.requires_grad for t in tensors)
        with autograd.no_grad():
            result = cls.forward(ctx, *args)
        outs = result if isinstance(result, tuple) else (result,)
        for out in outs:
            if not isinstance(out, Tensor):
                raise GradientError(f"{cls.__name__}.forward must return tensors, got {type(out).__name__}")
        if any(ctx.needs_input_grad) and is_grad_enabled():
            made = {id(o): i for i, o in enumerate(outs) if o.dtype.differentiable and not any(o is t for t in tensors)}
            ctx._outputs = {p: made[id(s.tensor)] for p, s in enumerate(ctx._saved) if id(s.tensor) in made}
            outs = tuple(alias_of.detach() for alias_of in outs)  # an input returned as it is gets a place of its own
            node = _FunctionNode(cls, ctx, tensors, outs)
            ctx._node = weakref.ref(node)
            for index, out in enumerate(outs):
                if out.dtype.differentiable:
                    out._node, out.requires_grad = (node, index), True
        return outs if isinstance(result, tuple) else outs[0]


class _FunctionNode(Node):
    """A recorded call of a user's Function."""

    keeps_gradients = True

    def __init__(
        self, function: type[Function], ctx: Context, inputs: Sequence[Tensor | None], outs: tuple[Tensor, ...]
    ) -> None:
        super().__init__(function.__name__, inputs)
        self.function = function
        self.ctx: Context | None = ctx
        self.outs = [(o.shape, gradient_format(o.dtype)) for o in outs]

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        from ulpgrad import ops

        if self.ctx is None:
            raise GradientError(f"backward of {self.name}: the graph has been freed; pass retain_graph=True before")
        gradients = [*gradients, *[None] * (len(self.outs) - len(gradients))]
        filled = [ops.zeros(s, dtype=f) if g is None else g for g, (s, f) in zip(gradients, self.outs, strict=True)]
        found = self.function.backward(self.ctx, *filled)
        found = found if isinstance(found, (tuple, list)) else (found,)
        if len(found) != len(self.edges):
            raise GradientError(f"{self.name}.backward returned {len(found)} gradients for {len(self.edges)} arguments")
        return found

    def free(self) -> None:
        self.ctx = None
