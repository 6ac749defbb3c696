"""`fused`: a function of elementwise ops as one op, which passes over memory once, forward and backward.

The function is run on small tensors, and the ops it calls are written down as a chain (`kernels/fused`). Its gradient is
traced in the same way, through the rules of these ops. Two runs, on different shapes and values, must do the same: a
function that looks at either is not fused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ulpgrad import autograd, dispatch
from ulpgrad.differentiable import Primitive
from ulpgrad.errors import ArgumentError, UlpgradError
from ulpgrad.explain import Explanation, explain_whole
from ulpgrad.formats import FLOATS, Format
from ulpgrad.formats.promotion import result_format
from ulpgrad.kernels import gpu
from ulpgrad.kernels.elementwise.table import ROWS
from ulpgrad.kernels.fused import spec
from ulpgrad.kernels.fused.chain import Builder, Chain
from ulpgrad.ops.common import as_tensor
from ulpgrad.tensor import Tensor

SAMPLES = ((2,), (3, 1, 2))  # shapes a function is traced on
MOST_TRACES = 256
Handle = tuple[str, int]


class _CannotFuse(UlpgradError):
    """Why a function is not a chain of elementwise ops."""


class _Recorder:
    """Takes over every call while a function is traced: runs it, and notes it as a step."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self.builder = Builder(len(inputs))
        self.known: dict[int, Handle] = {id(t.storage): self.builder.operand(i) for i, t in enumerate(inputs)}
        self.kept: list[Any] = [t.storage for t in inputs]  # so that no identity is given twice
        self.backward = False

    def call(self, primitive: Primitive, tensors: tuple[Any, ...], params: dict[str, Any]) -> tuple[Tensor, ...]:
        row = ROWS.get(primitive.op.name)
        if row is None:
            raise _CannotFuse(f"{primitive.op.name} is no elementwise op")
        bounds = (-np.inf, np.inf)  # of clip, the one op that leaves operands out
        sources = [self.builder.constant(bounds[i - 1]) if t is None else self.handle(t) for i, t in enumerate(tensors)]
        outs = primitive.plain(tensors, params)
        self.known[id(outs[0].storage)] = self.builder.step(row.name, sources, params)
        self.kept.append(outs[0].storage)
        return outs

    def whole(self, name: str, function: Callable[..., Any], args: Any, options: Any) -> Any:
        return function(*args, **options)

    def handle(self, t: Tensor) -> Handle:
        """The value a tensor stands for."""
        found = self.known.get(id(t.storage))
        if found is not None:
            return found
        if t.ndim and not (self.backward and (t.storage == t.storage.flat[0]).all()):  # a rule's zeros are a constant
            raise _CannotFuse(
                f"it uses a tensor of shape {t.shape} that is neither an argument nor computed by such an op"
            )
        if t.requires_grad:
            raise _CannotFuse("it uses a tensor that requires a gradient and is no argument")
        return self.builder.constant(float(t.dtype.decode(gpu.to_host(t.storage)).flat[0]))


class _Trace(NamedTuple):
    """What one run wrote down: the result, and the gradient of each operand (None: zero), if it is such a chain as well."""

    builder: Builder
    result: Handle
    gradients: tuple[Handle | None, ...] | None

    def forward(self, name: str) -> Chain:
        return self.builder.chain(name, [self.result], self.builder.operands - 1)  # the last is the gradient's

    def backward(self, name: str, needed: Sequence[bool]) -> Chain | None:
        """The chain that gives the gradients that are needed and not zero; None for no gradient at all."""
        assert self.gradients is not None
        wanted = [h for h, n in zip(self.gradients, needed, strict=True) if n and h is not None]
        return self.builder.chain(f"{name}_gradient", wanted) if wanted else None


def _trace(function: Callable[..., Any], forms: Sequence[Format], shape: tuple[int, ...]) -> _Trace:
    """Run a function of tensors of these formats, and its gradient, and write down what they do."""
    rng = np.random.default_rng(len(shape))
    inputs = [Tensor(f.encode(rng.uniform(0.5, 1.5, shape)), f).requires_grad_() for f in forms]
    outer = result_format(*forms)
    g = Tensor(outer.encode(rng.uniform(0.5, 1.5, shape)), outer)
    recorder = _Recorder([*inputs, g])
    token = dispatch.call_policy.set(recorder)
    dispatch.state.count(policies=1)
    try:
        with autograd.enable_grad():
            result = function(*inputs)
        if not isinstance(result, Tensor):
            raise _CannotFuse(f"it gives {type(result).__name__}: expected one tensor")
        if result.shape != shape or result.dtype is not outer:
            raise _CannotFuse(f"its result is {result.dtype}{list(result.shape)} for operands {outer}{list(shape)}")
        value = recorder.handle(result)
        if any(t._version_cell()[0] for t in inputs):
            raise _CannotFuse("it writes to an argument in place")
        recorder.backward = True
        gradients: tuple[Handle | None, ...] | None = None
        if result.requires_grad:
            try:
                found = autograd.grad(result, inputs, g, allow_unused=True)
                gradients = tuple(None if t is None else recorder.handle(t) for t in found)
            except _CannotFuse:  # its gradient goes through the ops one by one
                pass
    finally:
        dispatch.call_policy.reset(token)
        dispatch.state.count(policies=-1)
    return _Trace(recorder.builder, value, gradients)


class _Gradient:
    """The rule of all operands of a fused function together."""

    def __init__(self, name: str, trace: _Trace, operands: Sequence[str]) -> None:
        self.name, self.trace = name, trace
        self.reads = ("g", "needed", *operands)
        self.primitive = Primitive(spec.fused, " ".join((*operands, "g0")))
        self.chains: dict[tuple[bool, ...], Chain | None] = {}

    def __call__(self, g: Tensor, needed: tuple[bool, ...], *operands: Tensor) -> list[Tensor | None]:
        if needed not in self.chains:
            self.chains[needed] = self.trace.backward(self.name, needed)
        chain = self.chains[needed]
        outs = iter(() if chain is None else self._run(chain, operands, g))
        assert self.trace.gradients is not None
        present = [n and h is not None for n, h in zip(needed, self.trace.gradients, strict=True)]
        return [next(outs) if p else None for p in present]

    def _run(self, chain: Chain, operands: tuple[Tensor, ...], g: Tensor) -> Sequence[Tensor]:
        return self.primitive.every(*operands, g, chain=chain)


class Fused:
    """A function made by `fused`. `explain(*args)` says which rung runs a call; `refusal(*args)` why it is not fused, or
    None."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self._calls: dict[Any, tuple[Primitive, Chain] | str] = {}

    def __call__(self, *args: Any, **options: Any) -> Any:
        if dispatch.state.special and (dispatch.call_policy.get() or dispatch.operand_policy.get()):
            return self.function(*args, **options)
        tensors, found = self._found(args, options)
        if isinstance(found, str):
            return self.function(*args, **options)
        primitive, chain = found
        return primitive(*tensors, chain=chain)

    def explain(self, *args: Any, **options: Any) -> Explanation:
        """Every rung's verdict on a call. ArgumentError with the reason if the function is not fused."""
        tensors, found = self._found(args, options)
        if isinstance(found, str):
            raise ArgumentError(f"{self.function.__name__} is not fused: {found}")
        formats, arrays = tuple(t.dtype for t in tensors), tuple(t.storage for t in tensors)
        spec.fused.check(*arrays, chain=found[1])  # type: ignore[misc]
        return explain_whole(spec.fused, formats, arrays, {"chain": found[1]})

    def refusal(self, *args: Any, **options: Any) -> str | None:
        """Why a call runs op by op, or None if it is fused."""
        found = self._found(args, options)[1]
        return found if isinstance(found, str) else None

    def _found(self, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[list[Tensor], Any]:
        """The tensors among the arguments; and the primitive and the chain that serve the call, or why there is none."""
        given = [as_tensor(a) if isinstance(a, (Tensor, np.ndarray)) else a for a in args]
        tensors = [a for a in given if isinstance(a, Tensor)]
        key = (
            *(a.dtype if isinstance(a, Tensor) else (a.__class__, repr(a)) for a in given),
            *((name, a.__class__, repr(a)) for name, a in options.items()),
        )
        found = self._calls.get(key)
        if found is None:
            if len(self._calls) >= MOST_TRACES:
                self._calls.clear()
            found = self._calls[key] = self._make(given, tensors, options)
        return tensors, found

    def _make(self, given: list[Any], tensors: list[Tensor], options: dict[str, Any]) -> tuple[Primitive, Chain] | str:
        if not tensors or any(t.dtype not in FLOATS for t in tensors):
            return "it takes tensors of floating formats"
        if not all(v is None or isinstance(v, (bool, int, float, str)) for v in (*given, *options.values())
                   if not isinstance(v, Tensor)) or any(isinstance(v, Tensor) for v in options.values()):  # fmt: skip
            return "beside tensors, in their places, it takes numbers and texts"

        def of_tensors(*operands: Tensor, **_: Any) -> Any:
            rest = iter(operands)
            return self.function(*(next(rest) if isinstance(a, Tensor) else a for a in given), **options)

        given = [a if not isinstance(a, Tensor) else Tensor(np.empty(0, a.storage.dtype), a.dtype) for a in given]
        forms, name = [t.dtype for t in tensors], self.function.__name__
        try:
            trace, again = (_trace(of_tensors, forms, shape) for shape in SAMPLES)
            chain = trace.forward(name)
            if not chain.is_like(again.forward(name)):
                return "what it does depends on shapes or values"
            read = {source for step in chain.steps for source in step.sources}
            if not read.issuperset(range(len(tensors))):
                return "its result does not hang on all of its operands"
        except _CannotFuse as reason:
            return str(reason)
        except UlpgradError as error:
            return f"it cannot be run on tensors of another shape: {error}"
        operands = [f"x{i}" for i in range(len(tensors))]
        rule = None if trace.gradients is None else _Gradient(name, trace, operands)
        return Primitive(spec.fused, " ".join(operands), joint=rule, composite=of_tensors), chain


def fused(function: Callable[..., Any]) -> Fused:
    """Let a function of elementwise ops run as one op: one pass over memory, forward and backward.

        @ug.fused
        def gate(x, y, slope=0.1):
            return ug.tanh(x) * ug.sigmoid(y) + slope * x

    It takes floating tensors (and arrays), which broadcast, and numbers and texts, which are part of what is traced, and
    gives one tensor. Intermediate values are not rounded to 16-bit formats. Tensors of one value that it uses without
    taking them are constants from the first call on. A function that does anything else runs op by op: `refusal(*args)`
    says why. So does every call under a policy. Second derivatives go through the ops one by one.
    """
    return Fused(function)
