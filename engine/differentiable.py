"""Where dispatch and autograd meet: an op with its gradient rules, and data movement with its way back.

A gradient rule says by its parameter names what it needs: `g` (the gradient of the result), operands, `y` and further
outputs, `x_shape` for the shape of operand x, `needed` (which operands want a gradient, for a joint rule), and the call's
parameters (`params`: all of them, as a dict). Only what some needed rule names is kept:

    multiply = Primitive(spec.multiply, "a b", gradients={"a": lambda g, b: g * b, "b": lambda g, a: g * a})
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from ulpgrad import autograd, dispatch
from ulpgrad.autograd import Node, Saved, is_grad_enabled
from ulpgrad.device import CPU, Device, device_of, moved_to, retried
from ulpgrad.errors import FormatError, GradientError
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.spec import Op
from ulpgrad.remembered import Remembered
from ulpgrad.tensor import Tensor

Rule = Callable[..., Any]
F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Places = tuple[tuple[str, int], ...]


class PlainCall(NamedTuple):
    """A call that ran on operands as they are."""

    primitive: Primitive
    tensors: Sequence[Tensor | None]
    outs: tuple[Tensor, ...]
    params: dict[str, Any]
    asked: list[Any]  # of a device


class Movement(NamedTuple):
    """Data that was moved: by `run` from the operands' arrays, or, without one, as a view of the only operand. Without
    operands it was made anew."""

    name: str
    tensors: Sequence[Tensor]
    outs: tuple[Tensor, ...]
    run: Callable[..., Any] | None
    back: Callable[[Tensor], Any] | None


class _PlainCalls:
    """These calls, as long as somebody listens (`remembered`)."""

    def __init__(self) -> None:
        self.listeners = 0
        self.heard: list[PlainCall | Movement] = []
        self.numbers: list[Tensor] = []  # operands made of numbers among the arguments
        self.varying = 0  # what hung on values, so that the same call may come to something else later

    def varies(self) -> None:
        """Note that the function which runs looks at values."""
        self.varying += self.listeners

    def __enter__(self) -> _PlainCalls:
        self.listeners += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.listeners -= 1
        self.heard, self.numbers, self.varying = [], [], 0


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
        recorded = routed = on_gpu = False
        for t in tensors:
            if t is None:
                arrays.append(None)
                formats.append(None)
            else:
                arrays.append(t.storage)
                on_gpu = on_gpu or t.storage.__class__ is not np.ndarray
                form = t.dtype
                formats.append(form)
                recorded, routed = recorded or t.requires_grad, routed or form.routed
        if routed:
            return self._routed(tensors, formats, params)
        if on_gpu and recorded:
            tensors = beside_others(tensors)
            arrays = [None if t is None else t.storage for t in tensors]
        asked: list[Any] | None = None
        if plain_calls.listeners:
            gpu.state.heard = asked = []
        try:
            result, forms = dispatch.call(self.op, tuple(formats), tuple(arrays), params)
        finally:
            if asked is not None:
                gpu.state.heard = None
        if len(forms) == 1:
            outs: tuple[Tensor, ...] = (Tensor(result, forms[0]),)
        else:
            outs = tuple([Tensor(r, f) for r, f in zip(result, forms, strict=True)])
        if recorded:
            self.record(tensors, outs, params)
        if plain_calls.listeners:
            plain_calls.heard.append(PlainCall(self, tensors, outs, params, asked or []))
        return outs

    def _routed(
        self, tensors: Sequence[Tensor | None], formats: Sequence[Format | None], params: dict[str, Any]
    ) -> tuple[Tensor, ...]:
        """By the arithmetic of a number system of its own, on the device of the operands."""
        run = arithmetic_of(formats)
        if all(f is None or not f.routed or f.kind == "block" for f in formats):
            return run(self, tensors, params)
        return where_they_are(tensors, lambda given: run(self, given, params))

    def record(self, tensors: Sequence[Tensor | None], outs: tuple[Tensor, ...], params: dict[str, Any]) -> None:
        """Tie the first output to a new node if an input requires a gradient."""
        mask, bit = 0, 1
        for t in tensors:
            if t is not None and t.requires_grad:
                mask |= bit
            bit <<= 1
        if mask and outs[0].dtype.differentiable and is_grad_enabled():
            outs[0]._node = (OpNode(self, tensors, outs, params, self.needs(mask)), 0)
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


class OpNode(Node):
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
        if name == "params":
            return self.params
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


class MoveNode(Node):
    """A recorded movement of data: values change place, not themselves. `back` moves a gradient to the inputs."""

    __slots__ = ("back",)

    def __init__(self, name: str, inputs: Sequence[Tensor | None], back: Callable[[Tensor], Any]) -> None:
        super().__init__(name, inputs)
        self.back = back

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        found = self.back(gradients[0])  # type: ignore[arg-type]
        return found if isinstance(found, (tuple, list)) else (found,)


def carried(x: Tensor, device: Device) -> Tensor:
    """A copy of x on another device; the gradient comes back from there."""
    source = x.device
    return moved("copy", [x], lambda storage: moved_to(storage, device), lambda g: carried(g, source))


def where_they_are(tensors: Sequence[Tensor | None], run: Callable[[Sequence[Tensor | None]], T]) -> T:
    """run(tensors) on the device of the operands, with single values of the host moved there."""
    if all(t is None or t.device.type == "cpu" for t in tensors):
        return run(tensors)
    tensors = beside_others(tensors)
    plain = dispatch.together(tuple(None if t is None or t.dtype.kind == "block" else t.storage for t in tensors))
    tensors = [
        t if t is None or a is None or t.storage is a else Tensor(a, t.dtype)
        for t, a in zip(tensors, plain, strict=True)
    ]
    index = dispatch.device_type(tuple(None if t is None else t.storage for t in tensors)).partition(":")[2]
    with gpu.on_device(int(index)):
        return run(tensors)


def beside_others(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Single values of the host that need a gradient, moved to the GPU where the other operands are, so that the gradient finds
    its way back. (Those that need none are moved by dispatch.)"""
    devices = [t.device for t in tensors if t is not None and t.device.type != "cpu"]
    return [
        carried(t, devices[0])
        if t is not None and t.requires_grad and t.ndim == 0 and t.device.type == "cpu" and devices
        else t
        for t in tensors
    ]


def through_host(name: str, tensors: Sequence[Tensor | None], run: Callable[..., Any]) -> Any:
    """run(*tensors), for what only the CPU can do: tensors of a GPU are copied to the host, and results back, with a warning."""
    device = next(t.device for t in tensors if t is not None and t.device.type != "cpu")
    dispatch.note_fallback(name, f"{name}: it is not computed on a GPU")
    results = run(*[t if t is None or t.device.type == "cpu" else carried(t, CPU) for t in tensors])
    if isinstance(results, Tensor):
        return carried(results, device)
    return tuple(carried(r, device) if isinstance(r, Tensor) else r for r in results)


SMALL = 1 << 12  # bytes; larger results are not kept to be copied


def made(out: Tensor, again: Callable[[], Any] | None = None) -> Tensor:
    """The tensor, whose values hang on nothing but the arguments of the function that made it: no tensor is among them.
    `again` makes the storage of the next such one, which has the same values unless it is given."""
    if plain_calls.listeners and out.storage.__class__ is np.ndarray and (again or out.nbytes <= SMALL):
        plain_calls.heard.append(Movement("made", (), (out,), again or out.storage.copy().copy, None))
    return out


def moved(
    name: str,
    inputs: Sequence[Tensor],
    run: Callable[..., Any],
    back: Callable[[Tensor], Any] | None,
    *,
    storage: Any = None,
) -> Tensor:
    """The result of moving data: what `run` makes of the storages of the inputs (`storage`, where that is at hand), in the format
    of the first, with `back` from its gradient to theirs; None leaves it out of the graph. Neither function may hold an input."""
    form = inputs[0].dtype
    if form.routed and name != "copy":
        check_movable(name, form, inputs)
    if storage is None:
        arrays = [t.storage for t in inputs]
        for a in arrays:
            if a.__class__ is not np.ndarray:
                storage = _moved_on_gpu(run, arrays)
                break
        else:
            storage = run(*arrays)
    out = Tensor(storage, form)
    return _recorded(name, inputs, out, run, back)


def _moved_on_gpu(run: Callable[..., Any], arrays: list[Any]) -> Any:
    """What `moved` does where some array lies on a GPU: all on one device, which is then the current one."""
    if dispatch.device_type(tuple(arrays)) == "cpu":  # blocks
        return run(*arrays)
    return retried(device_of(arrays[0]).index, run, *arrays)


def viewed(name: str, x: Tensor, storage: Any, back: Callable[[Tensor], Any] | None) -> Tensor:
    """A view of x: `storage`, which shares its memory, so that writes are seen through both. `back` is from its gradient to
    that of x; None leaves it outside the graph."""
    form = x.dtype
    if form.routed and name not in ("alias", "detach"):
        check_movable(name, form, [x])
    out = Tensor(storage, form)
    out._cell = x._version_cell()
    return _recorded(name, [x], out, None, back)


def _recorded(
    name: str,
    inputs: Sequence[Tensor],
    out: Tensor,
    run: Callable[..., Any] | None,
    back: Callable[[Tensor], Any] | None,
) -> Tensor:
    for t in inputs:
        if t.requires_grad and back is not None and is_grad_enabled():
            out._node = (MoveNode(name, inputs, back), 0)
            out.requires_grad = True
            break
    if plain_calls.listeners:
        plain_calls.heard.append(Movement(name, inputs, (out,), run, back))
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
    return viewed("alias", x, x.storage, lambda g: g)


def apart(x: Tensor) -> Tensor:
    """x outside the graph: `detach`, for functions that remember their calls."""
    return viewed("detach", x, x.storage, None)
