"""The number systems that are compared: which format each kind of tensor has, and how a step is made in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ulpgrad import nn, ops, optim
from ulpgrad.formats import Fixed, Format, Q, as_format, bfloat16, float16, float32, int32
from ulpgrad.policy import DelayedScaling, DynamicFixed, GradScaler, Policy, Scaled, autocast
from ulpgrad.tensor import Tensor

ROLES = ("weight", "activation", "gradient", "update")
INTERVAL = 10  # uses between two looks at a moving radix point
GROWTH_INTERVAL = 200  # steps until a loss scale is tried twice as large: the default of 2000 is more than a run has


class Stepper(Protocol):
    """A training under way: the policy to compute under, and a step."""

    policy: Policy | autocast | None

    def __call__(self, model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> float: ...


@dataclass(frozen=True)
class Scheme:
    """A row. Formats say what is counted; `make(seed)` trains in them. `update` is what weights are kept in."""

    label: str
    meaning: str
    weight: Format
    activation: Format
    gradient: Format
    accumulate: Format
    update: Format
    make: Callable[[int], Stepper]


class Plain:
    """float32, or autocast with a 16-bit format; `scaler` multiplies the loss."""

    def __init__(self, form: Format, scaled: bool = False) -> None:
        self.policy: Policy | autocast | None = None if form is float32 else autocast(form)
        self.scaler = GradScaler(growth_interval=GROWTH_INTERVAL, enabled=scaled)

    def __call__(self, model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> float:
        optimizer.zero_grad()
        loss = ops.cross_entropy(model(x), y)
        self.scaler.scale(loss).backward()
        self.scaler.step(optimizer)
        self.scaler.update()
        return float(loss.item())


class Ruled:
    """A Policy. Gradients that it leaves in float32 are rounded before the step to the format in which they are sent."""

    def __init__(self, policy: Policy, sent: Format | None = None) -> None:
        self.policy: Policy | autocast | None = policy
        self.rules, self.sent = policy, sent

    def __call__(self, model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> float:
        optimizer.zero_grad()
        loss = ops.cross_entropy(model(x), y)
        loss.backward()
        if self.sent is not None:
            for p in model.parameters():
                if p.grad is not None:
                    p.grad = as_sent(p.grad, self.sent)
        self.rules.step(optimizer)
        return float(loss.item())


def as_sent(gradient: Tensor, form: Format) -> Tensor:
    """A gradient as it arrives after being sent in a format: in blocks, or with one scale for the whole tensor that brings its
    largest value to the format's."""
    if form.kind == "block":
        return ops.fake_quantize(gradient, form)
    top = float(np.abs(gradient.storage).max())
    if not 0 < top < np.inf:
        return gradient
    scale = form.max / top  # type: ignore[attr-defined]
    sent: Tensor = ops.fake_quantize(gradient * scale, form, overflow="saturate") / scale
    return sent


def _plain(form: Format, scaled: bool = False) -> dict[str, Any]:
    return {"weight": form, "activation": form, "gradient": form, "accumulate": float32, "update": float32,
            "make": lambda seed: Plain(form, scaled)}  # fmt: skip


def _everywhere(form: Format, accumulate: Format = float32, update: Format = float32, **options: Any) -> dict[str, Any]:
    """One format for weights, activations and gradients, unscaled, wherever values arise."""
    roles: dict[str, Any] = {"weight": form, "activation": form, "gradient": form}
    kept: dict[str, Any] = {} if update is float32 else {"update": update}
    return {**roles, "accumulate": accumulate, "update": update,
            "make": lambda seed: Ruled(Policy(**roles, **kept, **options, seed=seed))}  # fmt: skip


def _blocks(name: str) -> dict[str, Any]:
    form = as_format(name)
    roles: dict[str, Any] = {"weight": form, "activation": form, "gradient": form}
    return {**roles, "accumulate": float32, "update": float32,
            "make": lambda seed: Ruled(Policy(**roles, seed=seed), form)}  # fmt: skip


def _moving() -> dict[str, Any]:
    return dict.fromkeys(ROLES, DynamicFixed(interval=INTERVAL))


def _integers(form: Fixed) -> dict[str, Any]:
    """Integers with a delayed scale for each tensor, gradients rounded stochastically and sent as such."""
    roles: dict[str, Any] = {"weight": form, "activation": form, "gradient": form}
    policy: dict[str, Any] = {
        **dict.fromkeys(roles, Scaled(form)),
        "bias": None,
        "rounding": {"gradient": "stochastic"},
    }
    return {**roles, "accumulate": int32, "update": float32,
            "make": lambda seed: Ruled(Policy(**policy, seed=seed), form)}  # fmt: skip


E4M3, E5M2 = as_format("float8_e4m3fn"), as_format("float8_e5m2")
Q16 = Q(5, 10)
TEN, TWELVE = Q(0, 9), Q(0, 11)

SCHEMES = {
    "float32": Scheme("float32", "Everything in float32: the yardstick.", **_plain(float32)),
    "bfloat16": Scheme(
        "bfloat16", "Products in bfloat16, sums and the weights that are stepped in float32 (autocast).", **_plain(bfloat16),
    ),
    "float16": Scheme(
        "float16, scaled loss", "The same in float16, with a loss scaler.", **_plain(float16, scaled=True),
    ),
    "bfloat16-pure": Scheme(
        "bfloat16, weights too", "Weights are kept in bfloat16 as well, rounded stochastically after each step: no master.",
        **_everywhere(bfloat16, update=bfloat16, rounding={"update": "stochastic"}),
    ),
    "fp8-hybrid": Scheme(
        "8-bit floats, hybrid", "e4m3 forward and e5m2 backward, each tensor with a delayed scale; gradients are sent in e5m2.",
        E4M3, E4M3, E5M2, float32, float32, lambda seed: Ruled(DelayedScaling(seed=seed), E5M2),
    ),
    "e5m2": Scheme("e5m2, unscaled", "Weights, activations and gradients in e5m2 as they are.", **_everywhere(E5M2)),
    "e4m3": Scheme(
        "e4m3, unscaled", "The same in e4m3, whose smallest value is 2⁻⁹: gradients vanish.", **_everywhere(E4M3),
    ),
    "mxfp8": Scheme("MXFP8 e4m3", "Blocks of 32 with one scale; gradients are sent in blocks.", **_blocks("mxfp8_e4m3")),
    "mxint8": Scheme("MXINT8", "Blocks of 32 8-bit integers with one scale.", **_blocks("mxint8")),
    "mxfp6": Scheme("MXFP6 e2m3", "Blocks of 32 6-bit floats with one scale.", **_blocks("mxfp6_e2m3")),
    "mxfp4": Scheme("MXFP4", "Blocks of 32 4-bit floats with one scale.", **_blocks("mxfp4_e2m1")),
    "int8": Scheme(
        "int8, scaled", "8-bit integers, each tensor with a delayed scale, gradients rounded stochastically; sums in int32.",
        **_integers(Q(0, 7)),
    ),
    "int4": Scheme("int4, scaled", "The same with 4 bits.", **_integers(Q(0, 3))),
    "int3": Scheme("int3, scaled", "The same with 3 bits.", **_integers(Q(0, 2))),
    "int2": Scheme("int2, scaled", "The same with 2 bits: -1, -1/2, 0 and 1/2 times a scale.", **_integers(Q(0, 1))),
    "q16": Scheme(
        "Q(5, 10), stochastic", "16-bit fixed point for everything, the weights that are stepped too, rounded stochastically.",
        **_everywhere(Q16, int32, Q16, rounding="stochastic"),
    ),
    "q16-nearest": Scheme(
        "Q(5, 10), nearest", "The same rounded to nearest: small updates are lost.", **_everywhere(Q16, int32, Q16),
    ),
    "dynamic": Scheme(
        "dynamic fixed, 10 and 12 bits", "10-bit words with a moving radix point for each tensor, weights kept in 12 bits; "
        "rounded stochastically.", TEN, TEN, TEN, int32, TWELVE,
        lambda seed: Ruled(Policy(**_moving(), rounding="stochastic", seed=seed)),
    ),
}  # fmt: skip

__all__ = ["SCHEMES", "Plain", "Ruled", "Scheme", "as_sent"]
