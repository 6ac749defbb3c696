"""One training run: a model, a row of the table of formats, a seed. The same call gives the same bits."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad import autograd, data, nn, ops, optim, random
from ulpgrad.bench import ledger
from ulpgrad.formats import Array, Format, bfloat16, float16, float32, float64
from ulpgrad.policy import GradScaler, autocast
from ulpgrad.tensor import Tensor

GROWTH_INTERVAL = 200  # steps: the default of 2000 is more than a run has


@dataclass(frozen=True)
class Precision:
    """A row of the table: the format of weights, gradients and optimizer state, that of products, and loss scaling."""

    label: str
    weights: Format
    products: Format | None
    scaled: bool
    meaning: str


PRECISIONS = {
    "float64": Precision("float64", float64, None, False, "Everything is float64: the yardstick."),
    "float32": Precision("float32", float32, None, False, "Everything is float32."),
    "bfloat16": Precision(
        "bfloat16", float32, bfloat16, False,
        "Mixed: products (dense layers, convolutions) take and give bfloat16 and add up in float32; the loss, the weights "
        "that are stepped (masters), their gradients and the optimizer's state are float32. No loss scaling: bfloat16 has "
        "float32's range.",
    ),
    "float16": Precision(
        "float16", float32, float16, False,
        "Mixed as above with float16, whose range is small: gradients below 3e-8 become zero, and below 6e-5 they lose digits.",
    ),
    "float16-scaled": Precision(
        "float16, scaled loss", float32, float16, True,
        "The same with GradScaler: the loss is multiplied, from 65536 on, so that small gradients stay in range; the "
        "gradients are divided again before the step, and a step whose gradients overflow is skipped.",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A network and how it is trained. `shifts`: each training image is moved by up to one pixel, at random."""

    make: Callable[[], nn.Module]
    text: str
    epochs: int
    shifts: bool


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(256, 128), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(128, 10),
    )  # fmt: skip


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 48, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(768, 96), nn.ReLU(),
        nn.Linear(96, 10),
    )  # fmt: skip


MODELS = {
    "mlp": Model(mlp, "MLP: dense layers 64-256-128-10 with dropout", epochs=60, shifts=False),
    "cnn": Model(cnn, "CNN: convolutions 3 x 3 with 16 and 48 filters, dense layers 768-96-10", epochs=30, shifts=True),
}
LEARNING_RATE = 3e-3  # falls to 0 by a cosine
WEIGHT_DECAY = 0.05


def train(
    model_name: str, precision_name: str, seed: int, epochs: int, batch_size: int,
    told: Callable[[int], None] = lambda epoch: None,
) -> dict[str, Any]:  # fmt: skip
    """Train one network; returns its figures as plain numbers. `told` hears of each epoch that begins."""
    precision = PRECISIONS[precision_name]
    random.manual_seed(seed)
    model = MODELS[model_name].make()  # drawn in float32 always, so that every row starts from the same weights
    if precision.weights is not float32:
        model.to(precision.weights)
    parameters = list(model.parameters())
    optimizer = optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    training, held_out = (
        _whole(data.digits(split, standardize=True), precision.weights) for split in ("train", "test")
    )
    moving = shifted(random.Generator(seed)) if MODELS[model_name].shifts else None
    loader = data.DataLoader(data.ArrayDataset(*training, transform=moving), batch_size, shuffle=True, seed=seed)
    schedule = optim.CosineAnnealingLR(optimizer, epochs * len(loader))
    scaler = GradScaler(growth_interval=GROWTH_INTERVAL, enabled=precision.scaled)

    times: list[float] = []
    losses: list[float] = []
    errors: list[float] = []
    zeros = values = 0
    kept = 0
    counted: ledger.Ledger | None = None
    begun = time.perf_counter()
    for epoch in range(epochs):
        told(epoch)
        model.train()
        total = 0.0
        for x, y in loader:
            start = time.perf_counter()
            optimizer.zero_grad()
            with products(precision):
                loss = ops.cross_entropy(model(x), y)
            if counted is None:
                kept = ledger.activations(loss, model)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            times.append(time.perf_counter() - start)
            total += loss.item() * len(y)
            if epoch == epochs - 1:
                zeros += sum(
                    p.grad.size - int(np.count_nonzero(p.grad.storage)) for p in parameters if p.grad is not None
                )
                values += sum(p.size for p in parameters)
            counted = counted or ledger.count(model, optimizer, kept)
        losses.append(total / len(training[1]))
        errors.append(error_rate(model, precision, *held_out))
    assert counted is not None
    steady = sorted(times[len(loader) :] or times)  # the first epoch compiles and fills caches
    return {
        "model": model_name,
        "precision": precision_name,
        "seed": seed,
        "parameters": sum(p.size for p in parameters),
        "steps": len(times),
        "losses": losses,
        "test_errors": errors,
        "final_loss": losses[-1],
        "test_error": errors[-1],
        "skipped_steps": scaler.skipped,
        "loss_scale": scaler.get_scale(),
        "zero_gradients": zeros / values,
        "bytes": counted.as_data(),
        "step_seconds": statistics.median(steady),
        "step_seconds_p20": steady[len(steady) // 5],
        "step_seconds_p80": steady[len(steady) * 4 // 5],
        "seconds": time.perf_counter() - begun,
    }


def products(precision: Precision) -> contextlib.AbstractContextManager[Any]:
    """The policy that a row's forward runs under."""
    return contextlib.nullcontext() if precision.products is None else autocast(precision.products)


def error_rate(model: nn.Module, precision: Precision, x: Tensor, y: Tensor) -> float:
    """Share of images that are taken for another digit, computed as in training."""
    model.eval()
    with autograd.no_grad(), products(precision):
        found = ops.argmax(model(x), axis=1)
    return float(np.mean(found.numpy() != y.numpy()))


def shifted(generator: random.Generator) -> Callable[[Array], Array]:
    """A transform that moves each image [n, c, h, w] by -1, 0 or 1 pixels each way, over the empty margin around it."""

    def move(x: Array) -> Array:
        n, _, h, w = x.shape
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=x.min())
        down, right = random.randint(0, 3, (2, n), generator=generator).numpy()
        rows, columns = down[:, None] + np.arange(h), right[:, None] + np.arange(w)
        taken = padded[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        return np.ascontiguousarray(np.moveaxis(taken, 3, 1))

    return move


def _whole(dataset: data.ArrayDataset, form: Format) -> tuple[Tensor, Tensor]:
    """All images and labels of a data set, images in a format."""
    x, y = dataset[:]
    return ops.astype(x, form, copy=False), y


__all__ = ["MODELS", "PRECISIONS", "Precision", "train"]
