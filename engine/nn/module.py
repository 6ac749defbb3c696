"""Module: a tree of parts. Parameters, buffers and sub-modules are simply the attributes that are such things, so that
nothing has to be registered except buffers, which are tensors that are not learned."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

from ulpgrad import io
from ulpgrad.device import CPU, Device, as_device
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import as_format
from ulpgrad.nn.parameter import Parameter
from ulpgrad.ops import as_tensor, astype, to_device, zeros_like
from ulpgrad.tensor import Tensor


class Mismatch(NamedTuple):
    """Names that `load_state_dict(strict=False)` passed over."""

    missing: list[str]
    unexpected: list[str]


class Module:
    """Base class of layers and models: assign parts to attributes in `__init__`, and define `forward`.

        class Net(nn.Module):
            def __init__(self):
                self.body = nn.Linear(64, 32)
                self.head = nn.Linear(32, 10)

            def forward(self, x):
                return self.head(ug.relu(self.body(x)))

    Parts are found in the order in which the attributes were first set. Modules in plain lists and dicts are not parts:
    use ModuleList or Sequential.
    """

    training: bool = True
    _buffers: tuple[str, ...] = ()

    def forward(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} needs a forward(...) method")

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self.forward(*args, **options)

    # Its parts

    def register_buffer(self, name: str, tensor: Tensor | None) -> None:
        """Set an attribute that is saved and converted with the module but not learned."""
        if "." in name or not name:
            raise ArgumentError(f"register_buffer: {name!r} is no attribute name")
        if name not in self._buffers:
            self._buffers = (*self._buffers, name)
        setattr(self, name, tensor)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Direct sub-modules with their attribute names."""
        for name, part in vars(self).items():
            if isinstance(part, Module):
                yield name, part

    def children(self) -> Iterator[Module]:
        for _, part in self.named_children():
            yield part

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module ("") and all below it, each once, parents first; names are dotted."""
        return self._walk(prefix, set())

    def _walk(self, path: str, seen: set[int]) -> Iterator[tuple[str, Module]]:
        if id(self) not in seen:
            seen.add(id(self))
            yield path, self
            for name, part in self.named_children():
                yield from part._walk(f"{path}.{name}" if path else name, seen)

    def modules(self) -> Iterator[Module]:
        for _, module in self.named_modules():
            yield module

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters with dotted names, each once even where modules share it."""
        seen: set[int] = set()
        for path, module in self.named_modules():
            for name, part in vars(module).items():
                if isinstance(part, Parameter) and id(part) not in seen:
                    seen.add(id(part))
                    yield f"{path}.{name}" if path else name, part

    def parameters(self) -> Iterator[Parameter]:
        for _, parameter in self.named_parameters():
            yield parameter

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Buffers with dotted names."""
        for path, module in self.named_modules():
            for name in module._buffers:
                tensor = getattr(module, name)
                if tensor is not None:
                    yield f"{path}.{name}" if path else name, tensor

    def buffers(self) -> Iterator[Tensor]:
        for _, tensor in self.named_buffers():
            yield tensor

    # What is done to all of them

    def apply(self, function: Callable[[Module], Any]) -> Self:
        """Call `function` on every sub-module and then on this one, as initialisers are."""
        for part in self.children():
            part.apply(function)
        function(self)
        return self

    def train(self, on: bool = True) -> Self:
        """Set every module's `training`, which dropout and batch norm look at."""
        for module in self.modules():
            module.training = on
        return self

    def eval(self) -> Self:
        return self.train(False)

    def requires_grad_(self, on: bool = True) -> Self:
        """Ask for (or freeze) all parameters' gradients."""
        for parameter in self.parameters():
            parameter.requires_grad_(on)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the parameters' gradients, or make them zeros."""
        for parameter in self.parameters():
            zero_grad(parameter, set_to_none)

    def to(self, target: Any, dtype: Any = None) -> Self:
        """Move all parameters, their gradients, and buffers to a device, or convert the floating ones to a floating format, in
        place: `to("cuda")`, `to(ug.bfloat16)`, `to("cuda", ug.bfloat16)`."""
        if isinstance(target, Device) or (isinstance(target, str) and target.split(":")[0] in ("cpu", "cuda")):
            place = as_device(target)
            self._replace(lambda t: to_device(t, place))
            return self if dtype is None else self.to(dtype)
        form = as_format(target)
        if form.kind != "float" or dtype is not None:
            raise FormatError(f"Module.to: expected a device, a floating format, or both in this order, got {target!r}")
        self._replace(lambda t: astype(t, form, copy=False) if t.dtype.kind == "float" else t)
        return self

    def cpu(self) -> Self:
        """Move everything to the CPU, in place."""
        return self.to(CPU)

    def cuda(self, device: Any = None) -> Self:
        """Move everything to a GPU, the current one unless a number or a name is given, in place."""
        return self.to("cuda" if device is None else f"cuda:{device}" if isinstance(device, int) else device)

    def _replace(self, function: Callable[[Tensor], Tensor]) -> None:
        """Put function(tensor) in the place of what every parameter, gradient and buffer holds."""
        for tensor in (*self.parameters(), *self.buffers()):
            new = function(tensor.detach())
            if new.storage is not tensor.storage:
                tensor.storage, tensor.dtype = new.storage, new.dtype
                tensor._written()
            if tensor.grad is not None:
                tensor.grad = function(tensor.grad.detach())

    # Saving and loading

    def state_dict(self) -> dict[str, Tensor]:
        """All parameters and buffers by dotted name: tensors outside the graph that share the module's memory."""
        state: dict[str, Tensor] = {}
        self._collect(state, "")
        return state

    def _collect(self, state: dict[str, Tensor], prefix: str) -> None:
        for name, part in vars(self).items():
            if isinstance(part, Parameter) or (name in self._buffers and part is not None):
                state[prefix + name] = part.detach()
        for name, child in self.named_children():
            child._collect(state, f"{prefix}{name}.")

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> Mismatch:
        """Write values from a `state_dict` (of tensors or arrays) into this module, in its own formats.

        Raises ArgumentError, before anything is written, with every name that is missing, unexpected or of another
        shape; with `strict=False` only for shapes, and the other names are returned.
        """
        own = self.state_dict()
        found = Mismatch([n for n in own if n not in state], [n for n in state if n not in own])
        given = {name: as_tensor(state[name]).detach() for name in own if name in state}
        problems = [
            f"{name!r} has shape {tensor.shape}, expected {own[name].shape}"
            for name, tensor in given.items()
            if tensor.shape != own[name].shape
        ]
        if strict:
            problems += [f"missing {name!r}" for name in found.missing]
            problems += [f"unexpected {name!r}" for name in found.unexpected]
        if problems:
            raise ArgumentError(f"load_state_dict into {type(self).__name__}: {'; '.join(problems)}")
        for name, tensor in given.items():
            own[name][...] = tensor.to(own[name].device)
        return found

    # What it looks like

    def extra_repr(self) -> str:
        """What stands in the brackets of the repr: the module's settings."""
        return ""

    def __repr__(self) -> str:
        parts = [f"({name}): " + repr(part).replace("\n", "\n  ") for name, part in self.named_children()]
        if not parts:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [self.extra_repr(), *parts] if self.extra_repr() else parts
        return "\n  ".join([f"{type(self).__name__}(", *lines]) + "\n)"


def zero_grad(parameter: Tensor, set_to_none: bool) -> None:
    """Forget a gradient, or make it zeros (new ones: the old tensor may be someone else's too)."""
    if set_to_none or parameter.grad is None:
        parameter.grad = None
    else:
        parameter.grad = zeros_like(parameter.grad.detach())


def save(module: Module, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write a module's state to a safetensors file, whole or not at all. See `ulpgrad.io.save`."""
    io.save(path, module.state_dict(), metadata)


def load(module: Module, path: str | os.PathLike[str], strict: bool = True) -> Mismatch:
    """Read a safetensors file into a module. See `ulpgrad.io.load` and `Module.load_state_dict`."""
    return module.load_state_dict(io.load(path), strict)
