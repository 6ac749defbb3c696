"""A trained network as a list of steps that integers can take: nested Sequentials laid flat, batch norm folded into the layer
before it, ReLU joined to the layer that it follows, dropout left out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array, float32
from ulpgrad.nn import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm1d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Linear,
    MaxPool2d,
    Module,
    ReLU,
    Sequential,
)
from ulpgrad.ops import adaptive_avg_pool2d, avg_pool2d, conv2d, flatten, linear, max_pool2d, relu
from ulpgrad.ops.common import pair
from ulpgrad.tensor import Tensor

EXPECTED = (
    "Linear, Conv2d, ReLU, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, Flatten, BatchNorm1d, BatchNorm2d, Dropout, or a "
    "Sequential of these"
)


@dataclass
class Step:
    """One step of inference. `kind` is "linear", "conv2d", "relu", "max_pool2d", "avg_pool2d", "adaptive_avg_pool2d" or
    "flatten"; the first two have a weight and a bias (float64, batch norm folded in) and may end with a ReLU. `settings` are
    those of the function."""

    name: str
    kind: str
    weight: Array | None = None
    bias: Array | None = None
    relu: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def multiplies(self) -> bool:
        return self.weight is not None

    def run(self, x: Tensor) -> Tensor:
        """The step in float32: what its integers stand for."""
        match self.kind:
            case "linear":
                y = linear(x, _float32(self.weight), _float32(self.bias))
            case "conv2d":
                y = conv2d(x, _float32(self.weight), _float32(self.bias), **self.settings)
            case "relu":
                return relu(x)
            case "flatten":
                return flatten(x, **self.settings)
            case "max_pool2d":
                return max_pool2d(x, **self.settings)
            case "adaptive_avg_pool2d":
                return adaptive_avg_pool2d(x, **self.settings)
            case _:
                return avg_pool2d(x, **self.settings)
        return relu(y) if self.relu else y


def _float32(values: Array | None) -> Tensor:
    assert values is not None
    return Tensor(values.astype(np.float32), float32)


@contextlib.contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """All modules in evaluation mode inside the block, each as it was afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


def fold(model: Module) -> list[Step]:
    """The steps of a network. ArgumentError names the layer that has no integer form, or stands where it cannot be folded."""
    steps: list[Step] = []
    for name, layer in _leaves(model, ""):
        if isinstance(layer, Dropout):
            continue
        if isinstance(layer, (BatchNorm1d, BatchNorm2d)):
            _fold_norm(steps, name, layer)
        elif isinstance(layer, ReLU):
            _join_relu(steps, name)
        else:
            steps.append(_step(name, layer))
    return steps


def _leaves(module: Module, path: str) -> Iterator[tuple[str, Module]]:
    if isinstance(module, Sequential) and type(module).forward is Sequential.forward:
        for name, part in module.named_children():
            yield from _leaves(part, f"{path}.{name}" if path else name)
    else:
        yield path or type(module).__name__, module


def _values(tensor: Tensor | None, size: int) -> Array:
    """A parameter in float64; zeros where there is none."""
    return np.zeros(size) if tensor is None else np.asarray(tensor.dtype.exact(tensor.storage), dtype=np.float64)


def _step(name: str, layer: Module) -> Step:
    kind = type(layer)
    if kind is Linear:
        assert isinstance(layer, Linear)
        return Step(name, "linear", _values(layer.weight, 0), _values(layer.bias, layer.out_features))
    if kind is Conv2d:
        assert isinstance(layer, Conv2d)
        return Step(name, "conv2d", _values(layer.weight, 0), _values(layer.bias, layer.out_channels), settings={
            "stride": pair(name, "stride", layer.stride, 1), "padding": _padding(name, layer),
            "dilation": pair(name, "dilation", layer.dilation, 1), "groups": layer.groups})  # fmt: skip
    if kind is MaxPool2d or kind is AvgPool2d:
        assert isinstance(layer, (MaxPool2d, AvgPool2d))
        settings: dict[str, Any] = {
            "kernel_size": pair(name, "kernel_size", layer.kernel_size, 1), "stride": pair(name, "stride", layer.stride, 1),
            "padding": pair(name, "padding", layer.padding)}  # fmt: skip
        if isinstance(layer, MaxPool2d):
            return Step(
                name, "max_pool2d", settings={**settings, "dilation": pair(name, "dilation", layer.dilation, 1)}
            )
        return Step(name, "avg_pool2d", settings={**settings, "count_include_pad": layer.count_include_pad})
    if kind is AdaptiveAvgPool2d:
        assert isinstance(layer, AdaptiveAvgPool2d)
        return Step(name, "adaptive_avg_pool2d", settings={"output_size": layer.output_size})
    if kind is Flatten:
        assert isinstance(layer, Flatten)
        return Step(name, "flatten", settings={"start": layer.start_dim, "end": layer.end_dim})
    raise ArgumentError(
        f"quantize: layer {name!r} is a {kind.__name__}, which has no integer form: expected {EXPECTED}"
    )


def _padding(name: str, layer: Conv2d) -> tuple[int, int]:
    """Padding as numbers. "same" has them only where it is the same on both sides."""
    if not isinstance(layer.padding, str):
        return pair(name, "padding", layer.padding)
    if layer.padding == "valid":
        return 0, 0
    spread = pair(name, "dilation", layer.dilation, 1)
    needed = [d * (k - 1) for d, k in zip(spread, layer.kernel_size, strict=True)]
    if any(n % 2 for n in needed):
        raise ArgumentError(
            f"quantize: layer {name!r} pads one side more than the other (padding='same', kernel {layer.kernel_size}): "
            "expected an odd kernel, or padding given as a number"
        )
    return needed[0] // 2, needed[1] // 2


def _fold_norm(steps: list[Step], name: str, norm: BatchNorm1d | BatchNorm2d) -> None:
    """y = (x - mean) * s + b with s = w / sqrt(var + eps), which goes into weight and bias of the step before."""
    before = steps[-1] if steps else None
    if before is None or before.weight is None or before.bias is None or before.relu:
        raise ArgumentError(
            f"quantize: layer {name!r} ({type(norm).__name__}) does not stand directly behind a Linear or Conv2d: it cannot "
            "be folded"
        )
    if norm.running_mean is None or norm.running_var is None:
        raise ArgumentError(f"quantize: layer {name!r} has no running statistics to fold; train it with them")
    channels = norm.num_features
    if channels != len(before.bias):
        raise ArgumentError(
            f"quantize: layer {name!r} has {channels} channels, {before.name!r} before it {len(before.bias)}"
        )
    mean, variance = _values(norm.running_mean, channels), _values(norm.running_var, channels)
    weight = np.ones(channels) if norm.weight is None else _values(norm.weight, channels)
    factor = weight / np.sqrt(variance + norm.eps)
    before.weight = before.weight * factor.reshape(-1, *[1] * (before.weight.ndim - 1))
    before.bias = (before.bias - mean) * factor + _values(norm.bias, channels)


def _join_relu(steps: list[Step], name: str) -> None:
    """ReLU exchanges with the maximum and with reshaping, so it may end the last layer with weights before these."""
    for step in reversed(steps):
        if step.multiplies:
            step.relu = True
            return
        if step.kind == "relu":
            return
        if step.kind in ("avg_pool2d", "adaptive_avg_pool2d"):
            break
    steps.append(Step(name, "relu"))


__all__ = ["Step", "evaluating", "fold"]
