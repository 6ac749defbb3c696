"""The loop that the studies of published results share: the digits, a network of dense layers, plain SGD, any policy."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from ulpgrad import autograd, data, nn, ops, optim, random
from ulpgrad.bench.lab.results import Figures
from ulpgrad.bench.lab.study import Run
from ulpgrad.errors import DivergenceError
from ulpgrad.policy import Policy, autocast
from ulpgrad.tensor import Tensor

HIDDEN = 256
CLASSES = 10
PIXELS = {"digits": 64, "mnist": 784}
DATA: dict[str, Callable[..., data.ArrayDataset]] = {"digits": data.digits, "mnist": partial(data.mnist, None)}
LARGE_TEST = 2000  # images of which the error is measured at a time


@dataclass(frozen=True)
class Recipe:
    """How a network is trained. `standardize`: images with mean 0 and deviation 1 instead of 0 to 1. `loss_scale`: see
    `usual_step`."""

    learning_rate: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    standardize: bool = False
    loss_scale: float = 1.0
    network: Callable[[str], nn.Module] | None = None


class Step(Protocol):
    """One step, under the run's policy: forward, backward and the optimizer's step; returns the loss of the batch."""

    def __call__(self, model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> float: ...


def network(dataset: str) -> nn.Module:
    """Dense layers 64-256-256-10 with ReLU (784 inputs for MNIST)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS[dataset], HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN), nn.ReLU(),
        nn.Linear(HIDDEN, CLASSES),
    )  # fmt: skip


def usual_step(policy: Policy | autocast | None, loss_scale: float = 1.0) -> Step:
    """Cross-entropy, backward, step; the policy rounds what was stepped.

    `loss_scale` multiplies the loss, and is divided out of the gradients again; a step whose gradients are then not all
    finite is left out.
    """

    def step(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> float:
        optimizer.zero_grad()
        loss = ops.cross_entropy(model(x), y)
        (loss if loss_scale == 1 else loss * loss_scale).backward()
        if loss_scale == 1 or divide_gradients(optimizer, loss_scale):
            if isinstance(policy, Policy):
                policy.step(optimizer)
            else:
                optimizer.step()
        return float(loss.item())

    return step


def divide_gradients(optimizer: optim.Optimizer, factor: float) -> bool:
    """Divide the gradients of all parameters in float32; whether they are finite."""
    finite = True
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        values = p.grad.storage * np.float32(1 / factor)
        p.grad = Tensor(values, p.grad.dtype)
        finite = finite and bool(np.isfinite(values).all())
    return finite


def train(
    run: Run,
    recipe: Recipe = Recipe(),
    *,
    policy: Policy | autocast | None = None,
    prepare: Callable[[nn.Module], optim.Optimizer] | None = None,
    step: Step | None = None,
    watch: Callable[[nn.Module, int], None] | None = None,
) -> Figures:
    """Train one network; the same run gives the same bits, and every row of a seed starts from the same weights and sees
    the same images in the same order.

    - `policy`: what each step runs under; the test error is measured under it too, which leaves its state as it was.
    - `prepare(model)`: changes a model (drawn in float32) to the row's formats and returns its optimizer; SGD otherwise.
    - `step(model, optimizer, x, y)`: one step of the row's own, in place of loss, backward and `policy.step(optimizer)`.
    - `watch(model, index)`: called after each step, while its gradients are there.

    Figures: `step_losses`, `losses` (means over each epoch), `test_errors` and `mean_outputs` (the mean of what the network
    puts out for the test images) after each epoch, `final_loss`, `test_error` and `best_error` (last, smallest),
    `first_not_finite` ({"step" from 1, "epoch", "where": "loss", or the parameter or gradient at fault} or None), `steps`,
    `parameters`, `seconds`. A training whose weights are no longer finite, or that a policy gives up (DivergenceError),
    stops; its remaining losses are not finite, its errors those of its last weights.
    """
    random.manual_seed(run.seed)
    model = (recipe.network or network)(run.data)
    optimizer = prepare(model) if prepare else optim.SGD(
        model.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )  # fmt: skip
    training, held_out = (DATA[run.data](split, standardize=recipe.standardize) for split in ("train", "test"))
    loader = data.DataLoader(training, run.batch_size, shuffle=True, seed=run.seed)
    one = step or usual_step(policy, recipe.loss_scale)
    step_losses: list[float] = []
    losses: list[float] = []
    errors: list[float] = []
    outputs: list[float] = []
    fault: dict[str, Any] | None = None
    lost = False
    begun = time.perf_counter()
    for epoch in range(run.epochs):
        if lost:
            losses.append(math.nan)
            errors.append(errors[-1])
            outputs.append(math.nan)
            continue
        run.told(f"epoch {epoch + 1}" + (f", error {errors[-1]:.1%}" if errors else ""))
        start = len(step_losses)
        for x, y in loader:
            where = None
            try:
                with policy or contextlib.nullcontext():
                    step_losses.append(one(model, optimizer, x, y))
            except DivergenceError as error:
                where, lost = error.where, True
            else:
                if watch is not None:
                    watch(model, len(step_losses) - 1)
                where = None if fault else _fault(step_losses[-1], model)
            if where and fault is None:
                fault = {"step": len(step_losses) + lost, "epoch": epoch + 1, "where": where}
            if lost or (fault and any(_not_finite(p) for p in model.parameters())):
                lost = True
                break
        share, mean = tested(model, held_out, policy)
        errors.append(share)
        outputs.append(mean)
        losses.append(float(np.mean(step_losses[start:])) if step_losses[start:] else math.nan)
    return {
        "step_losses": step_losses,
        "losses": losses,
        "test_errors": errors,
        "mean_outputs": outputs,
        "final_loss": losses[-1],
        "test_error": errors[-1],
        "best_error": min(errors),
        "first_not_finite": fault,
        "steps": len(step_losses),
        "parameters": sum(p.size for p in model.parameters()),
        "seconds": time.perf_counter() - begun,
    }


def error_rate(model: nn.Module, held_out: data.ArrayDataset, policy: Policy | autocast | None = None) -> float:
    """Share of images that are taken for another digit, computed as in training; an image whose outputs are not all finite
    counts as wrong. The policy's state is left as it was."""
    return tested(model, held_out, policy)[0]


def tested(model: nn.Module, held_out: data.ArrayDataset, policy: Policy | autocast | None) -> tuple[float, float]:
    """The error rate and the mean of all outputs."""
    was = model.training
    before = policy.state_dict() if isinstance(policy, Policy) else None
    model.eval()
    wrong, means = 0, []
    with autograd.no_grad():
        for x, y in data.DataLoader(held_out, LARGE_TEST):
            try:
                with policy or contextlib.nullcontext():
                    outputs = model(x).numpy().astype(np.float32)
            except DivergenceError:  # weights that a fixed-point format refuses
                wrong += len(y)
                continue
            right = (outputs.argmax(axis=1) == y.numpy()) & np.isfinite(outputs).all(axis=1)
            wrong += len(right) - int(right.sum())
            means.append(float(outputs.mean()))
    model.train(was)
    if before is not None and isinstance(policy, Policy):
        policy.load_state_dict(before)
    return wrong / len(held_out), float(np.mean(means)) if means else math.nan


def _fault(loss: float, model: nn.Module) -> str | None:
    """What is not finite, if anything: the loss, a gradient, or a parameter."""
    if not math.isfinite(loss):
        return "loss"
    for name, p in model.named_parameters():
        if p.grad is not None and _not_finite(p.grad):
            return f"gradient of {name}"
        if _not_finite(p):
            return name
    return None


def _not_finite(t: Tensor) -> bool:
    return not bool(np.isfinite(t.storage if t.storage.dtype.kind == "f" else t.numpy().astype(np.float32)).all())


__all__ = ["Recipe", "Step", "divide_gradients", "error_rate", "network", "train", "usual_step"]
