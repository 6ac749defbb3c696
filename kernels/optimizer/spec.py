"""Optimizer steps in torch's formulas. Parameter and state are written in place and returned; None is state that is not kept.

The last operand of every step, `scaling`, is what a loss scaler and clipping leave to the step: [1 + k] numbers in the
parameter's format, a switch and k factors. Where the switch is 0 nothing is written. Else the gradient, once it is in the
parameter's format, is multiplied by one factor after the other, and every product is rounded to that format: the bits are those
of a separate pass for each factor. None: neither.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, float32, float64
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample

State = Array | None
ULPS: dict[Format, float] = {float32: 8, float64: 8}


def one_format(request: Request) -> str | None:
    """Predicate of rungs that want parameter, gradient and state in one format."""
    return None if len({f for f in request.formats if f is not None}) == 1 else "mixes float formats"


def are_flat(*arrays: State, **_: Any) -> bool:
    """Whether all arrays are C-contiguous, so that one index runs through them side by side."""
    return all(a is None or a.flags.c_contiguous for a in arrays)


def flat_in_one_format(request: Request) -> str | None:
    """Predicate of rungs that run through C-contiguous arrays of one format."""
    return one_format(request) or (None if are_flat(*request.arrays) else "takes C-contiguous arrays")


def with_scaling(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that takes `scaling` behind its other operands, from one that does not."""

    @functools.wraps(step)
    def reference(p: Array, g: Array, *rest: State, **params: Any) -> Any:
        *state, scaling = rest
        if scaling is None:
            return step(p, g, *state, **params)
        for k in range(1, scaling.size):
            g = g * scaling[k]
        new = step(p, g, *state, **params)
        old = [a for a in (p, *state) if a is not None]
        kept = [np.where(scaling[0] != 0, a, b) for a, b in zip(new if len(old) > 1 else (new,), old, strict=True)]
        return tuple(kept) if len(kept) > 1 else kept[0]

    return reference


@with_scaling
def sgd_reference(p: Array, g: Array, buf: State, *, lr: float, momentum: float, dampening: float, nesterov: bool,
                  weight_decay: float, first: bool) -> Any:  # fmt: skip
    """`first`: the buffer holds nothing yet and starts as the gradient itself, not dampened."""
    g = g + weight_decay * p
    if buf is None:
        return p - lr * g
    buf = g if first else momentum * buf + (1 - dampening) * g
    return p - lr * (g + momentum * buf if nesterov else buf), buf


@with_scaling
def adam_reference(p: Array, g: Array, m: Array, v: Array, *, lr: float, beta1: float, beta2: float, eps: float,
                   weight_decay: float, decoupled: bool, step: int) -> Any:  # fmt: skip
    if decoupled:
        p = p * (1 - lr * weight_decay)
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    denominator = np.sqrt(v) / np.sqrt(1 - beta2**step) + eps
    return p - lr / (1 - beta1**step) * m / denominator, m, v


@with_scaling
def adagrad_reference(p: Array, g: Array, s: Array, *, lr: float, eps: float, weight_decay: float) -> Any:
    g = g + weight_decay * p
    s = s + g * g
    return p - lr * g / (np.sqrt(s) + eps), s


@with_scaling
def rmsprop_reference(p: Array, g: Array, s: Array, buf: State, *, lr: float, alpha: float, eps: float, momentum: float,
                      weight_decay: float) -> Any:  # fmt: skip
    g = g + weight_decay * p
    s = alpha * s + (1 - alpha) * g * g
    move = g / (np.sqrt(s) + eps)
    if buf is None:
        return p - lr * move, s
    buf = momentum * buf + move
    return p - lr * buf, s, buf


def _check_shapes(name: str, p: Array, others: dict[str, State], scaling: State) -> None:
    if scaling is not None and (scaling.ndim != 1 or scaling.shape[0] < 1):
        raise ShapeError(f"{name}: scaling has shape {tuple(scaling.shape)}: expected (1 + k,), a switch and k factors")
    for what, a in others.items():
        if a is not None and tuple(a.shape) != tuple(p.shape):
            raise ShapeError(f"{name}: {what} has shape {tuple(a.shape)}: expected the parameter's, {tuple(p.shape)}")


def _check_sgd(p: Array, g: Array, buf: State, scaling: State, *, momentum: float, nesterov: bool, **_: Any) -> None:
    _check_shapes("sgd_step", p, {"g": g, "buf": buf}, scaling)
    if buf is None and (momentum or nesterov):
        raise ArgumentError(
            f"sgd_step: momentum={momentum}, nesterov={nesterov} need a buffer: pass zeros like p as buf"
        )


def _check_adam(p: Array, g: Array, m: Array, v: Array, scaling: State, *, step: int, **_: Any) -> None:
    _check_shapes("adam_step", p, {"g": g, "m": m, "v": v}, scaling)
    if step < 1:
        raise ArgumentError(f"adam_step: step={step}: steps are counted from 1")


def _check_adagrad(p: Array, g: Array, s: Array, scaling: State, **_: Any) -> None:
    _check_shapes("adagrad_step", p, {"g": g, "s": s}, scaling)


def _check_rmsprop(p: Array, g: Array, s: Array, buf: State, scaling: State, *, momentum: float, **_: Any) -> None:
    _check_shapes("rmsprop_step", p, {"g": g, "s": s, "buf": buf}, scaling)
    if buf is None and momentum:
        raise ArgumentError(f"rmsprop_step: momentum={momentum} needs a buffer: pass zeros like p as buf")


def _mutated(*positions: int) -> Any:
    """Result rule: what is written in place keeps its format."""

    def result(*formats: Format | None, **_: Any) -> tuple[Format, ...]:
        return tuple(f for f in (formats[i] for i in positions) if f is not None)

    return result


SHAPES = ((5,), (), (3, 4), (0,), (1030,), (33, 3))
SCALINGS = (None, (1.0,), (1.0, 0.25), (1.0, 0.5, 3.0), (0.0, 0.5))


def _samples(states: int, optional: int, variants: tuple[dict[str, Any], ...]) -> Any:
    """Samples with `states` positive state arrays; the last `optional` of them only where params say "buffer". The last variant
    comes with factors as well, and with a switch that is off."""

    def samples() -> Iterator[Sample]:
        rng = np.random.default_rng(0)
        for shape in SHAPES:
            for variant in variants:
                params = dict(variant)
                absent = optional if not params.pop("buffer", True) else 0
                arrays = [np.asarray(rng.standard_normal(shape)) for _ in range(2)]
                state = [np.asarray(rng.random(shape)) for _ in range(states - absent)]
                given = (*arrays, *state, *[None] * absent)
                for scaling in SCALINGS if variant is variants[-1] else (None,):
                    numbers = None if scaling is None else np.array(scaling)
                    yield Sample((*given, numbers), params, name=f"{shape} {variant} {scaling or ''}".strip())

    return samples


def _absolute(reference: Any) -> Any:
    """Errors are measured against |old| + |new| of each result."""

    def magnitude(p: Array, g: Array, *rest: State, **params: Any) -> Any:
        new = reference(p, g, *rest, **params)
        old = [a for a in (p, *rest[:-1]) if a is not None]
        if not isinstance(new, tuple):
            return np.abs(old[0]) + np.abs(new) + np.abs(g)
        return tuple(np.abs(a) + np.abs(b) + np.abs(g) * 0.1 for a, b in zip(old, new, strict=True))

    return magnitude


_SGD = {"lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.0, "first": False}
_ADAM = {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0, "decoupled": False, "step": 1}
_RMSPROP = {"lr": 0.01, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "weight_decay": 0.0}

sgd_step = Op(
    "sgd_step",
    signature="(p, g, buf?, scaling?: [1 + k], *, lr, momentum, dampening, nesterov, weight_decay, first) -> (p, buf?)",
    doc="Gradient descent with momentum as torch.optim.SGD has it; `first` starts the buffer with the gradient.",
    reference=sgd_reference,
    check=_check_sgd,
    result=_mutated(0, 2),
    formats=FLOATS,
    promote=False,
    flops=lambda p, *_, **__: 6 * p.size,
    samples=_samples(1, 1, (
        {**_SGD, "momentum": 0.0, "weight_decay": 0.1, "buffer": False}, _SGD,
        {**_SGD, "dampening": 0.5, "weight_decay": 0.1, "first": True}, {**_SGD, "nesterov": True, "weight_decay": 0.01},
        {**_SGD, "dampening": 0.5})),
    ulps=ULPS,
    magnitude=_absolute(sgd_reference),
    key=are_flat,
    mutates=(0, 2),
)  # fmt: skip

adam_step = Op(
    "adam_step",
    signature="(p, g, m, v, scaling?: [1 + k], *, lr, beta1, beta2, eps, weight_decay, decoupled, step) -> (p, m, v)",
    doc="Adam (Kingma and Ba 2015); `decoupled` weight decay makes it AdamW (Loshchilov and Hutter 2019).",
    reference=adam_reference,
    check=_check_adam,
    result=_mutated(0, 2, 3),
    formats=FLOATS,
    promote=False,
    flops=lambda p, *_, **__: 14 * p.size,
    samples=_samples(2, 0, (_ADAM, {**_ADAM, "weight_decay": 0.1, "step": 10},
                            {**_ADAM, "weight_decay": 0.1, "decoupled": True, "step": 100_000})),
    ulps=ULPS,
    magnitude=_absolute(adam_reference),
    key=are_flat,
    mutates=(0, 2, 3),
)  # fmt: skip

adagrad_step = Op(
    "adagrad_step",
    signature="(p, g, s, scaling?: [1 + k], *, lr, eps, weight_decay) -> (p, s)",
    doc="AdaGrad (Duchi et al. 2011): the step shrinks with the sum of squared gradients.",
    reference=adagrad_reference,
    check=_check_adagrad,
    result=_mutated(0, 2),
    formats=FLOATS,
    promote=False,
    flops=lambda p, *_, **__: 8 * p.size,
    samples=_samples(
        1, 0, ({"lr": 0.1, "eps": 1e-10, "weight_decay": 0.0}, {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.1})
    ),
    ulps=ULPS,
    magnitude=_absolute(adagrad_reference),
    key=are_flat,
    mutates=(0, 2),
)

rmsprop_step = Op(
    "rmsprop_step",
    signature="(p, g, s, buf?, scaling?: [1 + k], *, lr, alpha, eps, momentum, weight_decay) -> (p, s, buf?)",
    doc="RMSProp (Hinton 2012) as torch.optim.RMSprop has it, not centred.",
    reference=rmsprop_reference,
    check=_check_rmsprop,
    result=_mutated(0, 2, 3),
    formats=FLOATS,
    promote=False,
    flops=lambda p, *_, **__: 9 * p.size,
    samples=_samples(2, 1, ({**_RMSPROP, "buffer": False}, {**_RMSPROP, "momentum": 0.9, "weight_decay": 0.1},
                            {**_RMSPROP, "weight_decay": 0.1, "buffer": False})),
    ulps=ULPS,
    magnitude=_absolute(rmsprop_reference),
    key=are_flat,
    mutates=(0, 2, 3),
)  # fmt: skip


# What clipping makes the norm of, and a loss scaler looks at to see whether every value is finite

LANES = 16
PIECE = 1024


def squares_reference(g: Array, scaling: State = None) -> Any:
    """Values are scaled in the gradient's own format, as the step scales them; the switch does not count.

    They go to 16 sums in turn, which are added in their order, and so are the sums of pieces of 1024: rungs of the CPU do the
    same, and agree bit for bit on float32, whose squares are exact in float64. There they cannot overflow either, so that the
    sum is finite where all values are.
    """
    for factor in () if scaling is None else scaling[1:]:
        g = g * factor
    values = np.zeros(-(-g.size // PIECE) * PIECE)
    values[: g.size] = g.reshape(-1)
    squares = (values * values).reshape(-1, PIECE // LANES, LANES)
    lanes = np.zeros((len(squares), LANES))
    for row in range(PIECE // LANES):
        lanes += squares[:, row]
    pieces = np.zeros(len(squares))
    for lane in range(LANES):
        pieces += lanes[:, lane]
    return np.cumsum(pieces)[-1] if len(pieces) else np.float64(0)


def _check_squares(g: Array, scaling: State) -> None:
    if scaling is not None and (scaling.ndim != 1 or scaling.shape[0] < 1):
        raise ShapeError(
            f"sum_of_squares: scaling has shape {tuple(scaling.shape)}: expected (1 + k,), a switch and k factors"
        )


def _squares_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(0)
    for shape in ((5,), (), (3, 4), (0,), (2085,), (33, 3)):
        for scaling in (None, (1.0, 0.25), (0.0, 0.5, 0.5)):  # products that need no rounding
            numbers = None if scaling is None else np.array(scaling)
            yield Sample((np.asarray(rng.standard_normal(shape)), numbers), name=f"{shape} {scaling or ''}".strip())


sum_of_squares = Op(
    "sum_of_squares",
    signature="(g, scaling?: [1 + k]) -> []",
    doc="Sum of squares of a scaled gradient, in float64.",
    reference=squares_reference,
    check=_check_squares,
    result=lambda *_, **__: float64,
    formats=FLOATS,
    promote=False,
    flops=lambda g, *_: 2 * g.size,
    samples=_squares_samples,
    ulps={float64: 16},
    key=are_flat,
)
