"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ulpgrad.autograd import is_grad_enabled
from ulpgrad.errors import ArgumentError
from ulpgrad.nn.activation import GELU, ReLU, Sigmoid, SiLU, Tanh
from ulpgrad.nn.linear import Linear
from ulpgrad.nn.module import Module

FUSED = {ReLU: "relu", GELU: "gelu", SiLU: "silu", Tanh: "tanh", Sigmoid: "sigmoid"}


class ModuleList(Module):
    """A list of modules; how they are called is up to the module that holds it."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        for module in modules:
            self.append(module)

    def append(self, module: Module) -> ModuleList:
        if not isinstance(module, Module):
            raise ArgumentError(f"{type(self).__name__}: expected modules, got {type(module).__name__}")
        setattr(self, str(len(self)), module)
        return self

    def __len__(self) -> int:
        return sum(1 for _ in self.children())

    def __iter__(self) -> Iterator[Module]:
        return iter(list(self.children()))

    def __getitem__(self, index: int | slice) -> Any:
        parts = list(self.children())
        return type(self)._of(parts[index]) if isinstance(index, slice) else parts[index]

    @classmethod
    def _of(cls, modules: list[Module]) -> ModuleList:
        return cls(modules)


class Sequential(ModuleList):
    """Modules called one after the other: `Sequential(Linear(64, 32), ReLU(), Linear(32, 10))`.

    While no gradient is recorded, a Linear and the activation behind it run as one kernel.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    @classmethod
    def _of(cls, modules: list[Module]) -> ModuleList:
        return cls(*modules)

    def forward(self, x: Any) -> Any:
        if is_grad_enabled():
            for module in vars(self).values():
                if isinstance(module, Module):
                    x = module(x)
            return x
        modules = list(self.children())
        i = 0
        while i < len(modules):
            activation = _fused(modules[i], modules[i + 1]) if i + 1 < len(modules) else None
            x = modules[i](x) if activation is None else modules[i].forward(x, activation)
            i += 1 if activation is None else 2
        return x


def _fused(first: Module, second: Module) -> str | None:
    """The name of the activation that can run inside the Linear before it."""
    if type(first) is not Linear or (isinstance(second, GELU) and second.approximate != "none"):
        return None
    return FUSED.get(type(second))
