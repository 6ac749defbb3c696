"""Modules made of modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from ulpgrad import dispatch
from ulpgrad.autograd import is_grad_enabled
from ulpgrad.errors import ArgumentError
from ulpgrad.kernels import native
from ulpgrad.nn.activation import GELU, ReLU, Sigmoid, SiLU, Tanh
from ulpgrad.nn.convolution import Conv2d, MaxPool2d
from ulpgrad.nn.linear import Linear
from ulpgrad.nn.module import Module
from ulpgrad.nn.normalization import BatchNorm2d
from ulpgrad.tensor import Tensor

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

    A Conv2d, the activation behind it and the pooling behind that run as one kernel where they can (see `ulpgrad.conv2d`),
    and so do, while no gradient is recorded, a Linear and its activation, and in evaluation mode a Conv2d, the BatchNorm2d
    behind it and an activation.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    @classmethod
    def _of(cls, modules: list[Module]) -> ModuleList:
        return cls(*modules)

    def forward(self, x: Any) -> Any:
        modules = [m for m in vars(self).values() if isinstance(m, Module)]
        recorded, i = is_grad_enabled(), 0
        while i < len(modules):
            module, fused = modules[i], {}
            if not recorded and i + 1 < len(modules) and _in_one(module, modules[i + 1], x):
                fused = _fused([module, *modules[i + 2 : i + 3]])
                x = cast(Conv2d, module).normalized(x, cast(BatchNorm2d, modules[i + 1]), **fused)
                i += 2 + len(fused)
                continue
            if type(module) is Conv2d or (type(module) is Linear and not recorded):
                fused = _fused(modules[i : i + 3])
            x = module(x, **fused)
            i += 1 + len(fused)
        return x


def _in_one(first: Module, norm: Module, x: Any) -> bool:
    """Whether a convolution and the batch normalization behind it are one kernel: in C++ or on a GPU, in one format, and where
    nobody asks for the steps."""
    if type(first) is not Conv2d or type(norm) is not BatchNorm2d or norm.training or norm.running_mean is None:
        return False
    if not isinstance(x, Tensor) or dispatch.state.policies or dispatch.state.pinned:
        return False
    if x.device.type == "cpu" and native.missing() is not None:
        return False
    parts = (x, first.weight, first.bias, norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return first.out_channels == norm.num_features and {t.dtype for t in parts if t is not None} == {x.dtype}


def _fused(modules: list[Module]) -> dict[str, Any]:
    """What the first module, a Linear or a Conv2d, can do of those behind it: by the names of its options."""
    first, *rest = modules
    fused: dict[str, Any] = {}
    if rest and type(rest[0]) in FUSED and not (isinstance(rest[0], GELU) and rest[0].approximate != "none"):
        fused["activation"] = FUSED[type(rest.pop(0))]
    if rest and type(first) is Conv2d and type(rest[0]) is MaxPool2d and rest[0].is_tiling():
        fused["max_pool"] = rest[0].kernel_size
    return fused
