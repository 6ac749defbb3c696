"""What quantisation costs and saves: accuracy, bytes, and where in the network the noise comes from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad.autograd import no_grad
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import Array, float32
from ulpgrad.nn import Module
from ulpgrad.ops import astype
from ulpgrad.ops.common import as_tensor
from ulpgrad.quantization.fold import evaluating, fold
from ulpgrad.quantization.model import QuantizedModel
from ulpgrad.tensor import Tensor

BATCH = 256


@dataclass(frozen=True)
class LayerComparison:
    """One layer: `sqnr` in dB, 10 log10 of the power of its float results over that of their difference to the integer ones (all
    noise so far); `saturated`, the share of its codes that were clamped at the ends of the format (ReLU's zeros are not)."""

    name: str
    kind: str
    sqnr: float
    saturated: float
    nbytes: int


@dataclass(frozen=True)
class Comparison:
    """A network and its quantised form on the same inputs. Accuracies and `agreement` are shares of inputs: right ones, and those
    for which both give the same class."""

    accuracy: float
    quantized_accuracy: float
    agreement: float
    nbytes: int
    quantized_nbytes: int
    inputs: int
    layers: tuple[LayerComparison, ...]

    def __str__(self) -> str:
        lines = [
            f"{'layer':<16} {'kind':<12} {'SQNR, dB':>9} {'saturated':>10} {'bytes':>9}",
            *(f"{x.name:<16} {x.kind:<12} {x.sqnr:>9.1f} {x.saturated:>10.3%} {x.nbytes:>9,}" for x in self.layers),
            f"accuracy {self.accuracy:.2%} -> {self.quantized_accuracy:.2%} on {self.inputs:,} inputs, the same answer to "
            f"{self.agreement:.2%}; {self.nbytes:,} -> {self.quantized_nbytes:,} bytes",
        ]
        return "\n".join(lines)


def compare(model: Module, quantized: QuantizedModel, data: Any) -> Comparison:
    """Run both on labelled data: a pair (inputs [n, ...], labels [n]), or batches of such pairs (a DataLoader).

    The class is the place of the largest result on the last axis. Raises ArgumentError for data without labels, or a
    quantised network of another model.
    """
    steps = fold(model)
    if [step.name for step in steps] != quantized.names:
        raise ArgumentError(
            f"compare: the model's layers are {', '.join(s.name for s in steps)}, the quantised one's "
            f"{', '.join(quantized.names)}: expected those of the same model"
        )
    signal, noise, clamped, codes_seen = (np.zeros(len(steps)) for _ in range(4))
    right = right_quantized = same = count = 0
    with no_grad(), evaluating(model):
        for x, labels in pairs(data):
            traced = quantized.trace(x)
            values = x
            for i, (step, (_, layer, given, codes)) in enumerate(zip(steps, traced, strict=True)):
                values = step.run(values)
                exact, got = values.storage.astype(np.float64), layer.target.decode(codes).astype(np.float64)
                signal[i] += (exact**2).sum()
                noise[i] += ((exact - got) ** 2).sum()
                clamped[i] += layer.saturated(given)
                codes_seen[i] += codes.size
            answer = model(x).storage.argmax(-1)
            answer_quantized = np.asarray(quantized.target.decode(traced[-1][3])).argmax(-1)
            right, right_quantized = (
                right + int((answer == labels).sum()),
                right_quantized + int((answer_quantized == labels).sum()),
            )
            same, count = same + int((answer == answer_quantized).sum()), count + len(labels)
    if not count:
        raise ArgumentError("compare: no inputs in the data")
    layers = tuple(
        LayerComparison(
            step.name, layer.label, _decibels(s, n), float(c / max(k, 1)), sum(t.nbytes for t in layer.buffers())
        )
        for step, layer, s, n, c, k in zip(steps, quantized.parts, signal, noise, clamped, codes_seen, strict=True)
    )
    floats = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    return Comparison(right / count, right_quantized / count, same / count, floats, quantized.nbytes, count, layers)


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def pairs(data: Any) -> Iterator[tuple[Tensor, Array]]:
    """Batches of inputs in float32 and labels."""
    whole = (
        isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(d, (Tensor, np.ndarray)) for d in data)
    )
    for batch in [data] if whole else data if isinstance(data, Iterable) else [data]:
        if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
            raise ArgumentError(
                "compare: expected inputs with labels: a pair (inputs, labels), or batches of such pairs"
            )
        x, labels = (as_tensor(part).detach() for part in batch)
        if x.ndim < 1 or labels.shape != x.shape[:1]:
            raise ArgumentError(f"compare: inputs {x.shape} and labels {labels.shape}: expected [n, ...] and [n]")
        for i in range(0, len(x), BATCH):
            yield astype(x[i : i + BATCH], float32, copy=False), labels.storage[i : i + BATCH]


__all__ = ["Comparison", "LayerComparison", "compare"]
