"""Bytes of a training step, counted from the tensors that are there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

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


def _saved(loss: Tensor) -> Iterable[Array]:
    """Every array that a node of the graph has saved."""
    edge = loss._edge()
    stack: list[Any] = [edge[0]] if isinstance(edge, tuple) else []
    seen = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        for saved in (getattr(node, "saved", None) or {}).values():
            if saved is not None:
                yield saved.tensor.storage
        stack += [edge[0] for edge in node.edges if isinstance(edge, tuple)]


def _memory(array: Array) -> tuple[int, int]:
    """Where an array's memory begins, whichever view of it is held, and its size."""
    base: Any = array
    while getattr(base, "base", None) is not None and isinstance(base.base, type(array)):
        base = base.base
    return base.__array_interface__["data"][0], int(base.nbytes)


__all__ = ["Ledger", "activations", "count"]
