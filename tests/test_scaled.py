"""Gradients that are still to be multiplied: the bits of separate passes, whoever reads them first; nothing is read twice."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn, optim
from ulpgrad.errors import GradientError
from ulpgrad.scaled import ScaledGradient

HARD = [1e-45, -3e-39, 2e-34, 1e-30, 0.1, -1.0, 3.3, 65504.0]
MAKERS = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.1),
    "adagrad": lambda ps: optim.Adagrad(ps, lr=0.1),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.1, momentum=0.5),
}


def start(form: Any = ug.float32) -> tuple[list[nn.Parameter], list[np.ndarray]]:
    rng = np.random.default_rng(0)
    gradients = [
        np.array(HARD, np.float32),
        rng.standard_normal((30, 50)).astype(np.float32),
        np.float32(2.5).reshape(()),
    ]
    params = [nn.Parameter(ug.asarray(rng.standard_normal(g.shape).astype(np.float32)).to(form)) for g in gradients]
    return params, gradients


def steps_in_passes(make: Any, scale: float, norm: float | None) -> list[bytes]:
    """Two steps on gradients that NumPy divided, and clipped, in a pass each."""
    params, gradients = start()
    optimizer = make(params)
    for _ in range(2):
        unscaled = [g * np.float32(1 / scale) for g in gradients]
        if norm is not None:
            total = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in unscaled))
            unscaled = [g * np.float32(norm / (total + 1e-6)) for g in unscaled]
        for p, g in zip(params, unscaled, strict=True):
            p.grad = ug.asarray(g)
        optimizer.step()
    return [p.detach().numpy().tobytes() for p in params]


@pytest.mark.parametrize("looks", [False, True], ids=["unread", "read"])
@pytest.mark.parametrize("norm", [None, 0.01])
@pytest.mark.parametrize("scale", [65536.0, 48.0, 0.3])
@pytest.mark.parametrize("name", MAKERS)
def test_bits_of_separate_passes(name: str, scale: float, norm: float | None, looks: bool) -> None:
    params, gradients = start()
    optimizer, scaler = MAKERS[name](params), ug.GradScaler(init_scale=scale)
    for _ in range(2):
        for p, g in zip(params, gradients, strict=True):
            p.grad = ug.asarray(g)
        if norm is not None:
            scaler.unscale_(optimizer)
            total = optim.clip_grad_norm_(params, norm)
            assert total == pytest.approx(
                math.sqrt(sum(float(((g / scale).astype(np.float64) ** 2).sum()) for g in gradients))
            )
        if looks:
            for p in params:
                assert p.grad.shape == p.shape
        assert scaler.step(optimizer)
        scaler.update()
        if not looks:
            assert all(isinstance(p.grad, ScaledGradient) and p.grad.unread() is not None for p in params), (
                "a pass of its own"
            )
    assert [p.detach().numpy().tobytes() for p in params] == steps_in_passes(MAKERS[name], scale, norm)
    if norm is None:
        for p, g in zip(params, gradients, strict=True):
            assert p.grad.numpy().tobytes() == (g * np.float32(1 / scale)).tobytes(), "what is read after the step"


@pytest.mark.parametrize("form", [ug.float16, ug.bfloat16, ug.float64])
def test_other_formats(form: Any) -> None:
    """Masters take the product in float32; float64 stays float64."""
    params, gradients = start(form)
    twin = copy.deepcopy(params)
    optimizer, other, scaler = optim.AdamW(params), optim.AdamW(twin), ug.GradScaler(init_scale=64.0)
    for p, q, g in zip(params, twin, gradients, strict=True):
        p.grad = ug.asarray(np.clip(g, -9, 9)).to(form)
        wide = p.grad.numpy().astype(np.float64 if form is ug.float64 else np.float32)
        q.grad = ug.asarray(wide * wide.dtype.type(1 / 64))
    assert scaler.step(optimizer)
    other.step()
    for p, q in zip(params, twin, strict=True):
        assert p.detach().numpy().tobytes() == q.detach().numpy().tobytes()


def test_clipping_twice_and_groups_apart() -> None:
    """Factors add up in their order; groups may be clipped apart."""
    params, gradients = start()
    for p, g in zip(params, gradients, strict=True):
        p.grad = ug.asarray(g)
    optim.clip_grad_norm_(params[:1], 3.0)
    optim.clip_grad_norm_(params, 0.5)
    first = gradients[0] * np.float32(3.0 / (math.sqrt(float((gradients[0].astype(np.float64) ** 2).sum())) + 1e-6))
    wide = [a.astype(np.float64) for a in (first, *gradients[1:])]
    factor = np.float32(0.5 / (math.sqrt(sum(float((a**2).sum()) for a in wide)) + 1e-6))
    for p, g in zip(params, (first, *gradients[1:]), strict=True):
        assert p.grad.numpy().tobytes() == (g * factor).tobytes()


def test_nan_reaches_the_parameters_without_a_scaler() -> None:
    p = nn.Parameter(ug.ones(3))
    p.grad = ug.asarray([math.nan, 1.0, 2.0])
    assert math.isnan(optim.clip_grad_norm_(p, 1.0))
    optim.SGD([p], lr=1.0).step()
    assert np.isnan(p.detach().numpy()).all()


def test_a_gradient_that_was_written_to_is_told() -> None:
    """What became of the old tensor is not the gradient any more; a copy, a conversion and a sum are made of the product."""
    p = nn.Parameter(ug.ones(3))
    for use in (lambda: p.grad.numpy(), lambda: optim.SGD([p], lr=1.0).step()):
        old = p.grad = ug.asarray([3.0, 0.0, 4.0])
        optim.clip_grad_norm_(p, 1.0)
        old[...] = old * 2.0
        with pytest.raises(GradientError, match="written to"):
            use()
    p.grad = ug.asarray([3.0, 0.0, 4.0])
    optim.clip_grad_norm_(p, 1.0)
    again = copy.deepcopy(p)
    assert again.grad.tolist() == pytest.approx([0.6, 0.0, 0.8])
    (p * ug.asarray([1.0, 2.0, 3.0])).sum().backward()
    assert p.grad.tolist() == pytest.approx([1.6, 2.0, 3.8])
    p.grad *= 2.0
    assert p.grad.tolist() == pytest.approx([3.2, 4.0, 7.6])


@pytest.mark.parametrize("pinned", ["cpu/reference", "cpu/numpy-in-place"])
def test_pinned_steps_take_factors(pinned: str) -> None:
    p = nn.Parameter(ug.ones(3))
    p.grad = ug.asarray([3.0, 0.0, 4.0])
    optim.clip_grad_norm_(p, 2.5)
    with ug.use(sgd_step=pinned):
        optim.SGD([p], lr=1.0).step()
    assert p.detach().tolist() == pytest.approx([-0.5, 1.0, -1.0], rel=1e-6)
