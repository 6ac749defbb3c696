"""`Function`: a differentiable function of a user's own."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

from ulpgrad import autograd
from ulpgrad.autograd import Node, Saved, is_grad_enabled
from ulpgrad.device import elsewhere
from ulpgrad.errors import GradientError
from ulpgrad.formats import gradient_format
from ulpgrad.tensor import Tensor


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
        self.outs = [(o.shape, gradient_format(o.dtype), elsewhere(o.storage)) for o in outs]

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Tensor | None]:
        from ulpgrad import ops

        if self.ctx is None:
            raise GradientError(f"backward of {self.name}: the graph has been freed; pass retain_graph=True before")
        gradients = [*gradients, *[None] * (len(self.outs) - len(gradients))]
        filled = [
            ops.zeros(shape, dtype=form, device=device) if g is None else g
            for g, (shape, form, device) in zip(gradients, self.outs, strict=True)
        ]
        found = self.function.backward(self.ctx, *filled)
        found = found if isinstance(found, (tuple, list)) else (found,)
        if len(found) != len(self.edges):
            raise GradientError(f"{self.name}.backward returned {len(found)} gradients for {len(self.edges)} arguments")
        return found

    def free(self) -> None:
        self.ctx = None
