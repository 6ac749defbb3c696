"""Reverse-mode differentiation: nodes recorded by ops, walked from the newest to the oldest.

A node is made after the nodes of its inputs, so walking in falling order of creation meets every consumer before its
producer: a heap is all the scheduling there is. Gradients are computed with the ops themselves, so `create_graph=True`
records them in turn.
"""

from __future__ import annotations

import contextlib
import functools
import heapq
import inspect
import itertools
import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

from ulpgrad.device import beside, elsewhere
from ulpgrad.errors import DeviceError, GradientError, ShapeError
from ulpgrad.formats import Format, gradient_format
from ulpgrad.kernels import deferred, gpu

if TYPE_CHECKING:
    from ulpgrad.tensor import Tensor

Edge = Any  # None, a leaf Tensor, or (Node, output index)
Hook = Callable[["Tensor"], "Tensor | None"]

recording: ContextVar[bool] = ContextVar("recording", default=True)
is_grad_enabled = recording.get
_in_backward: ContextVar[bool] = ContextVar("in_backward", default=False)
is_in_backward = _in_backward.get
sequence = itertools.count()


class _GradMode(contextlib.ContextDecorator):
    """Context manager and decorator that sets whether ops are recorded."""

    def __init__(self, on: bool) -> None:
        self.on = on
        self.tokens: list[Any] = []

    def _recreate_cm(self) -> _GradMode:
        return _GradMode(self.on)  # calls of a decorated function may overlap, in several threads

    def __call__(self, function: Any) -> Any:
        if not inspect.isgeneratorfunction(function):
            return super().__call__(function)

        @functools.wraps(function)
        def stepped(*args: Any, **options: Any) -> Any:
            """The generator's own code runs in the mode, its consumer's does not."""
            generator = function(*args, **options)
            resume, sent = generator.send, None
            while True:
                try:
                    with _GradMode(self.on):
                        item = resume(sent)
                except StopIteration as end:
                    return end.value
                try:
                    resume, sent = generator.send, (yield item)
                except GeneratorExit:
                    with _GradMode(self.on):
                        generator.close()
                    raise
                except BaseException as error:
                    resume, sent = generator.throw, error

        return stepped

    def __enter__(self) -> None:
        self.tokens.append(recording.set(self.on))

    def __exit__(self, *_: object) -> None:
        recording.reset(self.tokens.pop())


def no_grad() -> _GradMode:
    """Nothing inside is recorded: `with no_grad(): ...`, or as a decorator."""
    return _GradMode(False)


def enable_grad() -> _GradMode:
    """Record again inside a `no_grad` block."""
    return _GradMode(True)


class Saved:
    """A tensor kept for backward. The graph is held without a reference cycle; writes since saving are noticed."""

    __slots__ = ("cell", "count", "tensor")

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self.cell = tensor._version_cell()
        self.count = self.cell[0]

    def get(self, name: str) -> Tensor:
        if self.cell[0] != self.count:
            raise GradientError(
                f"backward of {name}: a tensor of shape {tuple(self.tensor.shape)} saved for the gradient was written to "
                f"in place {self.cell[0] - self.count} time(s) since; write to a copy, or call backward first"
            )
        return self.tensor


def operands_of(inputs: Sequence[Tensor | None]) -> list[Any]:
    """The shape of each input, and the format of its gradient."""
    return [
        None if t is None else (t.storage.shape, gradient_format(t.dtype) if t.dtype.routed else t.dtype)
        for t in inputs
    ]


class Node:
    """One recorded operation. Subclasses say how gradients of the outputs become gradients of the inputs."""

    __slots__ = ("__weakref__", "edges", "hooks", "name", "operands", "retained", "sequence")

    hooks: dict[int, list[Hook]] | None
    retained: dict[int, weakref.ref[Tensor]] | None
    keeps_gradients = False  # whether what vjp gives may also be held elsewhere: by a user's code

    def __init__(self, name: str, inputs: Sequence[Tensor | None]) -> None:
        self.name = name
        self.sequence = next(sequence)
        self.edges: list[Edge] = [None if t is None or not t.requires_grad else t._node or t for t in inputs]
        self.operands = operands_of(inputs)
        self.hooks = self.retained = None

    def vjp(self, gradients: list[Tensor | None]) -> Sequence[Any]:
        """Gradients of the inputs from those of the outputs (None: zero): tensors, or Placed ones."""
        raise GradientError(f"{self.name} has no gradient: wrap it in ulpgrad.Function to give it one")

    def free(self) -> None:
        """Let go of what was saved."""

    @property
    def freed(self) -> bool:
        """Whether backward can no longer pass."""
        return False


class Placed:
    """A gradient that is zero but at an index: that of picking. All that belong to one tensor are added into one buffer,
    so that picking a tensor to pieces costs no array of zeros for each."""

    __slots__ = ("gradient", "index", "shape")

    def __init__(self, gradient: Tensor, shape: tuple[int, ...], index: Any) -> None:
        self.gradient, self.shape, self.index = gradient, shape, index

    def whole(self) -> Tensor:
        """The gradient with its zeros."""
        from ulpgrad.kernels import memory
        from ulpgrad.kernels.copy.into import copy_into
        from ulpgrad.tensor import Tensor

        given = self.gradient.storage
        storage = memory.zeros_beside(given, self.shape)
        if given.ndim and given.__class__ is np.ndarray:
            copy_into(storage[self.index], given)
        else:
            with beside(storage):
                storage[self.index] = given
        return Tensor(storage, self.gradient.dtype)


def _fit(gradient: Tensor, shape: tuple[int, ...], form: Format, name: str) -> Tensor:
    """A gradient as its operand wants it: broadcast axes summed, in the operand's format."""
    if getattr(gradient, "dtype", None) is form and gradient.storage.shape == shape:
        return gradient
    from ulpgrad import ops
    from ulpgrad.tensor import Tensor

    if not isinstance(gradient, Tensor):
        raise GradientError(f"backward of {name}: expected a Tensor as gradient, got {type(gradient).__name__}")

    if gradient.shape != shape:
        extra = gradient.ndim - len(shape)
        if extra < 0 or any(s not in (1, g) for s, g in zip(shape, gradient.shape[extra:], strict=True)):
            raise ShapeError(f"backward of {name}: gradient of shape {gradient.shape} for an input of shape {shape}")
        axes = (*range(extra), *(i + extra for i, s in enumerate(shape) if s == 1 and gradient.shape[i + extra] != 1))
        gradient = ops.reshape(ops.sum(gradient, axis=axes, dtype=gradient.dtype), shape)
    return gradient if gradient.dtype is form else ops.astype(gradient, form)


def _run(
    roots: Sequence[tuple[Tensor, Tensor]],
    wanted: dict[Any, int] | None,
    create_graph: bool,
    retain_graph: bool,
) -> list[Tensor | None]:
    token = _in_backward.set(True)
    try:
        return _walk(roots, wanted, create_graph, retain_graph)
    finally:
        _in_backward.reset(token)


def _walk(
    roots: Sequence[tuple[Tensor, Tensor]],
    wanted: dict[Any, int] | None,
    create_graph: bool,
    retain_graph: bool,
) -> list[Tensor | None]:
    """Walk back from the roots. `wanted` maps an edge's key to a position in the result; None accumulates into leaves."""
    from ulpgrad import ops

    heap: list[tuple[int, Node]] = []
    pending: dict[Node, list[Tensor | None]] = {}
    leaves: dict[Any, tuple[Tensor, Tensor, bool]] = {}  # the gradient so far, and whether its memory is its own
    results: list[Tensor | None] = [None] * len(wanted or ())
    buffers: set[Any] = set()  # edges whose gradient so far lies in memory that nobody else has

    def add(a: Tensor | None, b: Tensor) -> Tensor:
        return b if a is None else ops.add(a, b)

    def send(edge: Edge, gradient: Tensor, own: bool) -> None:
        if not isinstance(edge, tuple):
            known = leaves.get(id(edge))
            leaves[id(edge)] = (edge, gradient, own) if known is None else (edge, ops.add(known[1], gradient), True)
            return
        node, index = edge
        slots = pending.get(node)
        if slots is None:
            slots = pending[node] = []
            heapq.heappush(heap, (-node.sequence, node))
        slots.extend([None] * (index + 1 - len(slots)))
        slots[index] = add(slots[index], gradient)

    def place(edge: Edge, placed: Placed) -> None:
        key = edge if isinstance(edge, tuple) else id(edge)
        if key not in buffers:
            buffers.add(key)
            send(edge, placed.whole(), True)
        else:
            known = pending[edge[0]][edge[1]] if isinstance(edge, tuple) else leaves[key][1]
            assert known is not None
            with beside(known.storage):
                known.storage[placed.index] += placed.gradient.storage

    needed = None if wanted is None else _ancestors_of_wanted(roots, wanted)
    with _GradMode(create_graph):
        for tensor, gradient in roots:
            send(tensor._edge(), gradient, False)
        while heap:
            _, node = heapq.heappop(heap)
            gradients = pending.pop(node)
            for index, g in enumerate(gradients):
                if g is None:
                    continue
                for hook in node.hooks.get(index, ()) if node.hooks else ():
                    g = gradients[index] = _hooked(hook, g)
                if node.retained and (kept := node.retained.get(index, lambda: None)()) is not None:
                    kept.grad = add(kept.grad, ops.copy(g))
                if wanted is not None and (node, index) in wanted:
                    results[wanted[node, index]] = g
            if needed is not None and node not in needed:
                continue
            for edge, g, operand in zip(node.edges, node.vjp(gradients), node.operands, strict=True):
                if edge is not None and g is not None:
                    shape, form = operand
                    if g.__class__ is Placed:
                        place(edge, g)
                        continue
                    fitted = _fit(g, shape, form, node.name)
                    send(edge, fitted, not node.keeps_gradients and not _shares(fitted, gradients))
            if not retain_graph:
                node.free()
        given: set[int] = set()
        for leaf, total, own in leaves.values():
            for hook in leaf._hooks or ():
                total, own = _hooked(hook, total), False
            if wanted is None:
                if leaf.grad is None and (not own or id(total.storage) in given):
                    total = ops.copy(total)
                given.add(id(total.storage))
                leaf.grad = add(leaf.grad, total)
            elif id(leaf) in wanted:
                results[wanted[id(leaf)]] = total
    return results


def _ancestors_of_wanted(roots: Sequence[tuple[Tensor, Tensor]], wanted: dict[Any, int]) -> set[Node]:
    """The nodes that lie between the roots and something wanted: only these need to run."""
    useful: set[Node] = set()
    nodes: dict[int, Node] = {}
    stack = [edge[0] for tensor, _ in roots if isinstance(edge := tensor._edge(), tuple)]
    while stack:
        node = stack.pop()
        if node.sequence not in nodes:
            nodes[node.sequence] = node
            stack.extend(edge[0] for edge in node.edges if isinstance(edge, tuple))
    for sequence in sorted(nodes):
        for edge in nodes[sequence].edges:
            if isinstance(edge, tuple):
                hit = edge in wanted or edge[0] in useful
            else:
                hit = edge is not None and id(edge) in wanted
            if hit:
                useful.add(nodes[sequence])
    return useful


def _shares(gradient: Tensor, gradients: Sequence[Tensor | None]) -> bool:
    """Whether a gradient may lie in memory of another tensor: as a view, or as one of those it was computed from."""
    storage = gradient.storage
    if storage.base is not None:
        return True
    return any(g is not None and g.storage is storage for g in gradients)


def _hooked(hook: Hook, gradient: Tensor) -> Tensor:
    replaced = hook(gradient)
    if replaced is None:
        return gradient
    if getattr(replaced, "shape", None) != gradient.shape:
        raise ShapeError(
            f"hook: returned {getattr(replaced, 'shape', type(replaced).__name__)} for a gradient of shape "
            f"{gradient.shape}; expected a tensor of that shape, or None"
        )
    return _fit(replaced, gradient.shape, gradient.dtype, "hook")


def _seed(tensor: Tensor, gradient: Tensor | None, what: str) -> Tensor:
    from ulpgrad import ops

    if tensor._edge() is None:
        raise GradientError(
            f"{what}: the tensor does not require a gradient and was not computed from one that does (nor does the "
            "gradient of what is linear in its inputs, even with create_graph=True: it is a constant)"
        )
    if gradient is None:
        if tensor.storage.size != 1:
            raise GradientError(
                f"{what}: a tensor of shape {tensor.shape} needs an explicit gradient of that shape; only a single "
                "value can do without (take .sum() or .mean() first)"
            )
        return ops.ones(tensor.shape, dtype=gradient_format(tensor.dtype), device=elsewhere(tensor.storage))
    gradient = ops.as_tensor(gradient)
    if gradient.device != tensor.device:
        raise DeviceError(
            f"{what}: gradient on {gradient.device} for a tensor on {tensor.device}: move it with .to(device)"
        )
    if gradient.shape != tensor.shape:
        raise ShapeError(f"{what}: gradient of shape {gradient.shape} for a tensor of shape {tensor.shape}")
    form = gradient_format(tensor.dtype)
    return gradient if gradient.dtype is form else ops.astype(gradient, form)


def backward(
    tensor: Tensor, gradient: Tensor | None = None, *, retain_graph: bool | None = None, create_graph: bool = False
) -> None:
    """Add d tensor / d leaf to the `.grad` of every leaf that requires a gradient.

    `gradient` (the tensor's shape) may be left out for a single value. The graph is freed as it is walked, unless
    `retain_graph` (default: `create_graph`).
    """
    if gpu.state.questions:
        deferred.look()
    keep = create_graph if retain_graph is None else retain_graph
    _run([(tensor, _seed(tensor, gradient, "backward"))], None, create_graph, keep)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Sequence[Tensor | None] | None = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> Any:
    """Gradients of the (summed) outputs with respect to the inputs, in their order; `.grad` is left alone.

    Returns a Tensor for a single Tensor input, else a tuple. An input that the outputs do not depend on raises
    GradientError, or gives None with `allow_unused`.

    With `create_graph` the gradients can be differentiated again. One that is constant, since the outputs are linear in
    the inputs (`sum`, `avg_pool2d`, `nll_loss`), requires no gradient: a penalty on it alone raises GradientError in
    backward, while beside any other loss it adds nothing, as it should.
    """
    from ulpgrad.tensor import Tensor

    one = isinstance(inputs, Tensor)
    outs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    ins: list[Tensor] = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    seeds = (
        [grad_outputs] * len(outs) if grad_outputs is None or isinstance(grad_outputs, Tensor) else list(grad_outputs)
    )
    if len(seeds) != len(outs):
        raise ShapeError(f"grad: {len(outs)} outputs but {len(seeds)} grad_outputs")
    wanted: dict[Any, int] = {}
    positions = []
    for i, t in enumerate(ins):
        edge = t._edge()
        if edge is None:
            raise GradientError(f"grad: input {i} of shape {t.shape} does not require a gradient")
        positions.append(wanted.setdefault(edge if isinstance(edge, tuple) else id(edge), len(wanted)))
    keep = create_graph if retain_graph is None else retain_graph
    roots = [(t, _seed(t, s, "grad")) for t, s in zip(outs, seeds, strict=True)]
    found = _run(roots, wanted, create_graph, keep)
    results = tuple(found[p] for p in positions)
    if not allow_unused and None in [r if r is None else 0 for r in results]:
        missing = next(i for i, r in enumerate(results) if r is None)
        raise GradientError(f"grad: the outputs do not depend on input {missing}; allow_unused=True gives None for it")
    return results[0] if one else results
