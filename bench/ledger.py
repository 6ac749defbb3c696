"""Bytes and operations of a training step, counted from the tensors and the graph that are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.nn import Module
from ulpgrad.optim import Optimizer
from ulpgrad.tensor import Tensor


@dataclass(frozen=True)
class Ledger:
    """Bytes of each kind, every piece of memory once.

    `activations` is what forward keeps for backward, with autocast's 16-bit copies of weights; `gradients` those of the
    parameters; `state` the optimizer's.
    """

    parameters: int
    activations: int
    gradients: int
    state: int

    @property
    def total(self) -> int:
        return self.parameters + self.activations + self.gradients + self.state

    def as_data(self) -> dict[str, int]:
        return {**asdict(self), "total": self.total}


def activations(loss: Tensor, model: Module) -> int:
    """Bytes that the graph of a loss holds for backward, parameters and buffers apart. Call it before backward."""
    own = {_memory(t.storage)[0] for t in (*model.parameters(), *model.buffers())}
    kept = {at: size for at, size in map(_memory, _saved(loss)) if at not in own}
    return sum(kept.values())


def count(model: Module, optimizer: Optimizer, kept: int) -> Ledger:
    """The ledger of a step that was just made; `kept` is what `activations` gave."""
    parameters = list(model.parameters())
    state = [a for s in optimizer.state.values() for a in (*s.arrays, s.master) if a is not None]
    return Ledger(
        parameters=sum(p.nbytes for p in parameters),
        activations=kept,
        gradients=sum(p.grad.nbytes for p in parameters if p.grad is not None),
        state=sum(a.nbytes for a in state),
    )


@dataclass(frozen=True)
class Work:
    """What a training step has to do, whatever its formats: numbers of values and of operations.

    `weights`: parameters. `activations`: values that forward keeps for backward. `errors`: gradients of the results of
    products on their way back. `forward`, `backward_x`, `backward_w`: multiply-adds of the products (dense layers,
    convolutions, matmuls) that give results, gradients of their inputs, and of their weights. `other`: all further operations
    of forward, and as many again for backward; `update`: those of the optimizer.
    """

    weights: int
    activations: int
    errors: int
    forward: int
    backward_x: int
    backward_w: int
    other: int
    update: int

    @property
    def products(self) -> int:
        """All multiply-adds."""
        return self.forward + self.backward_x + self.backward_w

    @property
    def operations(self) -> int:
        """Everything, a multiply-add as two."""
        return 2 * self.products + self.other + self.update

    def as_data(self) -> dict[str, int]:
        return {**asdict(self), "products": self.products, "operations": self.operations}


PRODUCTS = ("linear", "matmul", "conv2d")


def work(loss: Tensor, model: Module, optimizer: Optimizer) -> Work:
    """Counted in the graph of a loss that was made in a float format, without a policy. Call it before backward.

    The cost of each op is what its specification says (`Op.flops`), on its operands' shapes.
    """
    own = {_memory(p.storage)[0] for p in model.parameters()}
    kept = {_memory(a)[0]: a.size for a in _saved(loss) if a.dtype.kind == "f" and _memory(a)[0] not in own}
    errors = forward = backward_x = backward_w = other = 0
    for node in _nodes(loss):
        op = getattr(getattr(node, "primitive", None), "op", None)
        if op is None:
            continue
        operands = [None if o is None else np.broadcast_to(np.zeros((), np.float32), o[0]) for o in node.operands]
        cost = op.flops(*operands, **node.params)
        if op.name in PRODUCTS:
            forward += round(cost / 2)
            backward_x += round(cost / 2) * (node.edges[0] is not None)
            backward_w += round(cost / 2) * (node.edges[1] is not None)
            right = operands[1]
            assert right is not None
            errors += round(cost / 2) // (right.shape[-2] if op.name == "matmul" else right[0].size)
        else:
            other += 2 * round(cost)
    parameters = [p.storage for p in model.parameters()]
    update = sum(type(optimizer).op.flops(p) for p in parameters)
    return Work(sum(p.size for p in parameters), sum(kept.values()), errors, forward, backward_x, backward_w, other,
                round(update))  # fmt: skip


def ring_all_reduce(size: float, workers: int) -> float:
    """What each of the workers sends to sum `size` (bytes) over all of them in a ring: 2 (N - 1) / N times it
    (Patarasuk and Yuan, 2009)."""
    return 2 * (workers - 1) / workers * size


def _nodes(loss: Tensor) -> Iterable[Any]:
    """Every node of the graph, once."""
    edge = loss._edge()
    stack: list[Any] = [edge[0]] if isinstance(edge, tuple) else []
    seen = set()
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            yield node
            stack += [edge[0] for edge in node.edges if isinstance(edge, tuple)]


def _saved(loss: Tensor) -> Iterable[Array]:
    """Every array that a node of the graph has saved."""
    for node in _nodes(loss):
        for saved in (getattr(node, "saved", None) or {}).values():
            if saved is not None:
                yield saved.tensor.storage


def _memory(array: Array) -> tuple[int, int]:
    """Where an array's memory begins, whichever view of it is held, and its size."""
    base: Any = array
    while getattr(base, "base", None) is not None and isinstance(base.base, type(array)):
        base = base.base
    return base.__array_interface__["data"][0], int(base.nbytes)


__all__ = ["Ledger", "Work", "activations", "count", "ring_all_reduce", "work"]
