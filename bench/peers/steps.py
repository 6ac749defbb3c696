"""Rows of whole programs: training steps, one small call, the import."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import ulpgrad as ug
from ulpgrad.bench.peers import others
from ulpgrad.bench.peers.products import normal
from ulpgrad.bench.peers.work import Contender, Slack, Target, Work

BATCH = 64
CLASSES = 10
WIDTH, HEADS, LENGTH, SEQUENCES = 256, 8, 128, 8
STEPS, CALLS, IMPORTS = "steps/s", "M calls/s", "imports/s"
EIGHT = np.arange(8, dtype=np.float32)
Step = Callable[[], Any]


def trained(library: Any, model: Any, x: Any, loss: Callable[[Any], Any]) -> Step:
    """One step of Adam."""
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> Any:
        optimizer.zero_grad()
        found = loss(model(x))
        found.backward()
        optimizer.step()
        return found.detach()

    return step


def classified(library: Any) -> Callable[[Any], Any]:
    """The cross-entropy with drawn labels."""
    labels = library.asarray(np.random.default_rng(1).integers(0, CLASSES, BATCH))
    cross_entropy = library.cross_entropy if library is ug else library.nn.functional.cross_entropy
    return lambda y: cross_entropy(y, labels)


def mlp(library: Any) -> Step:
    """784-512-256-10."""
    nn = library.nn
    layers = nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, CLASSES)
    return trained(library, nn.Sequential(*layers), library.asarray(normal((BATCH, 784), 0)), classified(library))


def cnn(library: Any) -> Step:
    """Two convolutions with pooling, two dense layers, on images of 28x28."""
    nn = library.nn
    layers = (
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Linear(128, CLASSES),
    )  # fmt: skip
    images = library.asarray(normal((BATCH, 1, 28, 28), 0))
    return trained(library, nn.Sequential(*layers), images, classified(library))


def transformer(library: Any) -> Step:
    """A layer of 256 with 8 heads on 8 sequences of 128: attention and a dense part of four times the width, each after a
    norm, each added to its input."""
    nn = library.nn
    is_own = library is ug
    attend = library.scaled_dot_product_attention if is_own else nn.functional.scaled_dot_product_attention
    base: Any = nn.Module
    permute = library.permute_dims if is_own else library.permute

    def swap(t: Any) -> Any:
        return permute(t, (0, 2, 1, 3))

    def added(layer: Any, t: Any, residual: Any) -> Any:
        return layer(t, residual=residual) if is_own else residual + layer(t)

    class Layer(base):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.before_attention, self.before_dense = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.projections, self.joined = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
            self.gelu = nn.GELU()

        def forward(self, x: Any) -> Any:
            all_three = self.projections(self.before_attention(x)).reshape(SEQUENCES, LENGTH, 3, HEADS, WIDTH // HEADS)
            q, k, v = (swap(all_three[:, :, i]) for i in range(3))
            x = added(self.joined, swap(attend(q, k, v)).reshape(SEQUENCES, LENGTH, WIDTH), x)
            return added(self.down, self.gelu(self.up(self.before_dense(x))), x)

    x = library.asarray(normal((SEQUENCES, LENGTH, WIDTH), 0))
    return trained(library, Layer(), x, lambda y: (y * y).mean())


def step(name: str, make: Callable[[Any], Step], targets: tuple[Target, ...]) -> Work:
    torch = others.imported("torch")
    peers = [] if torch is None else [Contender("torch", make(torch), 1, None)]
    return Work(name, Contender("ulpgrad", make(ug), 1, None), peers, STEPS, 1, targets=targets)


def small_call(name: str, targets: tuple[Target, ...]) -> Work:
    """Eight values plus eight."""

    def added(library: Any) -> Step:
        a, b = library.asarray(EIGHT), library.asarray(EIGHT)
        return lambda: a + b

    torch = others.imported("torch")
    peers = [Contender("NumPy", added(np), 1)]
    peers += [] if torch is None else [Contender("torch", added(torch), 1, lambda y: np.asarray(y.numpy()))]
    return Work(
        name, Contender("ulpgrad", added(ug), 1, lambda y: np.asarray(y.numpy())), peers, CALLS, 1e6, targets=targets
    )


def fresh() -> dict[str, str]:
    """Variables of a process that keeps what it compiles to bytecode, as users' do: else each import compiles everything anew."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def start(name: str, targets: tuple[Slack, ...]) -> Work:
    """A fresh Python that imports a library and ends."""

    def imports(module: str) -> Contender:
        command = [sys.executable, "-c", f"import {module}"]
        return Contender(module, lambda: subprocess.run(command, check=True, env=fresh()), 1, None)

    ours = imports("ulpgrad")
    peers = [imports(module) for module in ("numpy", "torch", "jax") if others.imported(module) is not None]
    return Work(name, ours, peers, IMPORTS, 1, targets=targets, note="with the start of Python itself")


T = Target

WORKS: dict[str, Callable[[str], Work]] = {
    "training step: MLP 784-512-256-10, Adam, batch 64": partial(step, make=mlp, targets=(T(2, "torch"),)),
    "training step: CNN 28x28, Adam, batch 64": partial(step, make=cnn, targets=(T(2, "torch"),)),
    "training step: transformer layer 256, 8 heads, 8x128": partial(step, make=transformer, targets=(T(1.5, "torch"),)),
    "a + b of 8 values": partial(small_call, targets=(T(1, "torch"),)),
    "import": partial(start, targets=(Slack(0.05, "numpy"),)),
}  # fmt: skip

__all__ = ["WORKS", "cnn", "fresh", "mlp", "transformer"]
