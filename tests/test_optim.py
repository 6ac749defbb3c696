"""Optimizers against their formulas in plain NumPy, schedules against lists of numbers, and what users get wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn, optim
from ulpgrad.errors import ArgumentError, FormatError, GradientError

SHAPES = ((3, 4), (5,), ())
STEPS = 5
Update = Callable[[Any, Any, dict[str, Any], int], Any]


def start(form: ug.Format = ug.float64) -> tuple[list[nn.Parameter], list[list[Any]]]:
    """Parameters, and gradients for each step, the same on every call."""
    rng = np.random.default_rng(0)
    values = [np.asarray(rng.standard_normal(s)) for s in SHAPES]
    gradients = [[np.asarray(rng.standard_normal(s)) for s in SHAPES] for _ in range(STEPS)]
    return [nn.Parameter(ug.asarray(v).to(form)) for v in values], gradients


# The formulas, as torch documents them, each for one parameter: (p, g, state, step) -> p


def sgd(lr: float, momentum: float = 0, dampening: float = 0, decay: float = 0, nesterov: bool = False) -> Update:
    def update(p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        g = g + decay * p
        if momentum:
            state["b"] = g if step == 1 else momentum * state["b"] + (1 - dampening) * g
            g = g + momentum * state["b"] if nesterov else state["b"]
        return p - lr * g

    return update


def adam(lr: float, b1: float, b2: float, eps: float, decay: float = 0, decoupled: bool = False) -> Update:
    def update(p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        p, g = (p - lr * decay * p, g) if decoupled else (p, g + decay * p)
        state["m"] = b1 * state.get("m", 0) + (1 - b1) * g
        state["v"] = b2 * state.get("v", 0) + (1 - b2) * g**2
        return p - lr * (state["m"] / (1 - b1**step)) / (np.sqrt(state["v"] / (1 - b2**step)) + eps)

    return update


def adagrad(lr: float, eps: float, decay: float = 0) -> Update:
    def update(p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        g = g + decay * p
        state["s"] = state.get("s", 0) + g**2
        return p - lr * g / (np.sqrt(state["s"]) + eps)

    return update


def rmsprop(lr: float, alpha: float, eps: float, decay: float = 0, momentum: float = 0) -> Update:
    def update(p: Any, g: Any, state: dict[str, Any], step: int) -> Any:
        g = g + decay * p
        state["v"] = alpha * state.get("v", 0) + (1 - alpha) * g**2
        state["b"] = momentum * state.get("b", 0) + g / (np.sqrt(state["v"]) + eps)
        return p - lr * state["b"]

    return update


CASES: list[tuple[Callable[..., optim.Optimizer], Update]] = [
    (lambda p: optim.SGD(p, lr=0.1), sgd(0.1)),
    (lambda p: optim.SGD(p, lr=0.1, weight_decay=0.2), sgd(0.1, decay=0.2)),
    (lambda p: optim.SGD(p, lr=0.1, momentum=0.9), sgd(0.1, 0.9)),
    (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.3, weight_decay=0.1), sgd(0.1, 0.9, 0.3, 0.1)),
    (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), sgd(0.1, 0.9, nesterov=True)),
    (lambda p: optim.Adam(p), adam(1e-3, 0.9, 0.999, 1e-8)),
    (lambda p: optim.Adam(p, lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.1), adam(0.1, 0.8, 0.9, 1e-3, 0.1)),
    (lambda p: optim.AdamW(p), adam(1e-3, 0.9, 0.999, 1e-8, 0.01, decoupled=True)),
    (lambda p: optim.AdamW(p, lr=0.1, weight_decay=0.3), adam(0.1, 0.9, 0.999, 1e-8, 0.3, decoupled=True)),
    (lambda p: optim.Adagrad(p), adagrad(1e-2, 1e-10)),
    (lambda p: optim.Adagrad(p, lr=0.3, weight_decay=0.1, eps=1e-3), adagrad(0.3, 1e-3, 0.1)),
    (lambda p: optim.RMSprop(p), rmsprop(1e-2, 0.99, 1e-8)),
    (lambda p: optim.RMSprop(p, lr=0.1, alpha=0.8, eps=1e-3, weight_decay=0.1, momentum=0.7),
     rmsprop(0.1, 0.8, 1e-3, 0.1, 0.7)),
]  # fmt: skip


def run(
    make: Callable[..., optim.Optimizer], form: ug.Format, tensor: Callable[[Any], ug.Tensor]
) -> list[nn.Parameter]:
    params, gradients = start(form)
    optimizer = make(params)
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = tensor(g)
        optimizer.step()
    return params


@pytest.mark.parametrize(("make", "update"), CASES)
@pytest.mark.parametrize("form", [ug.float64, ug.float32])
def test_steps_are_the_formulas(make: Callable[..., optim.Optimizer], update: Update, form: ug.Format) -> None:
    params = run(make, form, lambda g: ug.asarray(g).to(form))
    initial, gradients = start(form)
    for i, (got, p) in enumerate(zip(params, initial, strict=True)):
        expected, state = p.detach().numpy().astype(np.float64), {}
        for step in range(STEPS):
            expected = update(expected, gradients[step][i], state, step + 1)
        tolerance = 1e-12 if form is ug.float64 else 1e-5
        np.testing.assert_allclose(got.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("make", "_"), CASES[::3])
@pytest.mark.parametrize("form", [ug.bfloat16, ug.float16])
def test_16_bit_parameters_have_float32_masters(
    make: Callable[..., optim.Optimizer], _: Update, form: ug.Format
) -> None:
    low = run(make, form, lambda g: ug.asarray(g).to(form))
    params, gradients = start(form)
    masters = [nn.Parameter(p.detach().to(ug.float32)) for p in params]
    optimizer = make(masters)
    for step in gradients:
        for p, g in zip(masters, step, strict=True):
            p.grad = ug.asarray(g).to(form).to(ug.float32)
        optimizer.step()
    for p, master in zip(low, masters, strict=True):
        assert p.dtype is form
        np.testing.assert_array_equal(p.storage, master.detach().to(form).storage)


def test_small_steps_are_not_lost_in_bfloat16() -> None:
    p = nn.Parameter(ug.ones(3, dtype=ug.bfloat16))
    optimizer = optim.SGD([p], lr=1e-3)
    for _ in range(100):
        p.grad = ug.ones(3, dtype=ug.bfloat16)
        optimizer.step()
    assert abs(p.detach().to(ug.float32).numpy() - 0.9).max() < 4e-3
    p.storage[...] = ug.ones(3, dtype=ug.bfloat16).storage  # written by someone else: the master follows
    p._written()
    optimizer.step()
    assert p.detach().to(ug.float32).numpy().max() > 0.99


def test_layouts_and_formats_of_gradients() -> None:
    p = nn.Parameter(ug.ones((3, 4)))
    optimizer = optim.Adam([p], lr=0.1)
    (p * 2.0).sum().backward()  # a broadcast view
    optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), 0.9, rtol=1e-6)
    p.grad = ug.asarray(np.ones((4, 3))).T
    optimizer.step()
    np.testing.assert_allclose(p.detach().numpy(), 0.8, rtol=0.02)


def test_rungs_can_be_pinned_and_logged(capsys: pytest.CaptureFixture[str]) -> None:
    params, gradients = start()
    optimizer = optim.Adam(params, lr=0.1)
    with ug.use(adam_step="cpu/reference"):
        for p, g in zip(params, gradients[0], strict=True):
            p.grad = ug.asarray(g)
        ug.log_kernels()
        optimizer.step()
        ug.log_kernels(False)
    assert capsys.readouterr().err.count("cpu/reference") == 3


def test_steps_are_noticed_by_saved_tensors() -> None:
    p = nn.Parameter(ug.asarray([2.0]))
    loss = (p * p).sum()
    p.grad = ug.asarray([1.0])
    optim.SGD([p], lr=0.1).step()
    with pytest.raises(GradientError, match="written to in place"):
        loss.backward()


def test_groups_have_settings_of_their_own() -> None:
    a, b, c = (nn.Parameter(ug.ones(2)) for _ in range(3))
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.25)
    optimizer.add_param_group({"params": [c], "lr": 1.0})
    for p in (a, b, c):
        p.grad = ug.ones(2)
    optimizer.step()
    assert [p.tolist()[0] for p in (a, b, c)] == [0.75, 0.5, 0.0]
    b.grad = None
    optimizer.step()
    assert b.tolist() == [0.5, 0.5]
    optimizer.zero_grad(set_to_none=False)
    assert a.grad is not None
    assert a.grad.tolist() == [0.0, 0.0]
    optimizer.zero_grad()
    assert a.grad is None
    assert "lr=0.5" in repr(optimizer)


def test_momentum_can_begin_later() -> None:
    p = nn.Parameter(ug.asarray([1.0]))
    optimizer = optim.SGD([p], lr=1.0)
    p.grad = ug.asarray([0.25])
    optimizer.step()
    optimizer.param_groups[0].update(momentum=0.5, dampening=0.5)
    optimizer.step()  # the buffer begins as the gradient, not dampened
    assert p.item() == 0.5
    optimizer.step()
    assert p.item() == 0.25


@pytest.mark.parametrize("make", [make for make, _ in CASES])
@pytest.mark.parametrize("form", [ug.float32, ug.bfloat16])
def test_state_dict_goes_on_where_it_was_taken(make: Callable[..., optim.Optimizer], form: ug.Format) -> None:
    params, gradients = start(form)
    whole = run(make, form, ug.asarray)
    optimizer = make(params)
    for step, group in enumerate(gradients):
        if step == 2:
            saved = optimizer.state_dict()
            params = [nn.Parameter(p.detach().to(form, copy=True)) for p in params]
            optimizer = make(params)
            optimizer.load_state_dict(saved)
        for p, g in zip(params, group, strict=True):
            p.grad = ug.asarray(g)
        optimizer.step()
    for p, q in zip(params, whole, strict=True):
        np.testing.assert_array_equal(p.storage, q.storage)


def test_state_that_does_not_fit_is_refused() -> None:
    params, gradients = start()
    optimizer = optim.Adam(params)
    params[0].grad = ug.asarray(gradients[0][0])
    optimizer.step()
    saved = optimizer.state_dict()
    assert list(saved["state"]) == [0]
    assert saved["state"][0].keys() == {"step", "exp_avg", "exp_avg_sq"}
    with pytest.raises(ArgumentError, match="parameters"):
        optim.Adam(params[:2]).load_state_dict(saved)
    with pytest.raises(ArgumentError, match=r"shape \(3, 4\), expected \(5,\)"):
        optim.Adam([params[1], params[0], params[2]]).load_state_dict(saved)
    with pytest.raises(ArgumentError, match="unknown state 'exp_avg'"):
        optim.SGD(params).load_state_dict(saved)


def test_conversion_after_a_step_is_refused() -> None:
    model = nn.Linear(2, 2, dtype=ug.float64)
    optimizer = optim.Adam(model.parameters())
    model(ug.ones((1, 2), dtype=ug.float64)).sum().backward()
    optimizer.step()
    model.to(ug.float32)
    with pytest.raises(FormatError, match="before its optimizer"):
        optimizer.step()


WEIGHT = nn.Parameter(ug.ones(2))
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: optim.SGD([]), ArgumentError, "no parameters"),
    (lambda: optim.SGD([WEIGHT, WEIGHT]), ArgumentError, "twice"),
    (lambda: optim.SGD([1.0]), ArgumentError, "expected tensors, got float"),  # type: ignore[list-item]
    (lambda: optim.SGD([WEIGHT * 2.0]), GradientError, "leaves"),
    (lambda: optim.SGD([ug.asarray([1])]), FormatError, "floating"),
    (lambda: optim.SGD([WEIGHT], lr=-1.0), ArgumentError, "lr=-1.0"),
    (lambda: optim.SGD([WEIGHT], nesterov=True), ArgumentError, "nesterov"),
    (lambda: optim.SGD([{"params": [WEIGHT], "beta": 1}]), ArgumentError, "no setting 'beta'"),
    (lambda: optim.Adam([WEIGHT], betas=(0.9, 1.0)), ArgumentError, "betas"),
    (lambda: optim.RMSprop([WEIGHT], alpha=1.5), ArgumentError, "alpha"),
    (lambda: optim.StepLR(optim.SGD([WEIGHT]), 0), ArgumentError, "step_size"),
    (lambda: optim.CosineAnnealingLR(optim.SGD([WEIGHT]), 0), ArgumentError, "T_max"),
    (lambda: optim.LinearLR(optim.SGD([WEIGHT]), total_iters=0), ArgumentError, "total_iters"),
    (lambda: optim.LambdaLR(optim.SGD([WEIGHT]), []), ArgumentError, "0 functions for 1 groups"),
    (lambda: optim.ReduceLROnPlateau(optim.SGD([WEIGHT]), mode="best"), ArgumentError, "mode"),
    (lambda: optim.ReduceLROnPlateau(optim.SGD([WEIGHT]), factor=2.0), ArgumentError, "factor"),
    (lambda: optim.clip_grad_norm_([WEIGHT], 1.0, norm_type=0), ArgumentError, "norm_type"),
    (lambda: optim.clip_grad_value_([WEIGHT], -1.0), ArgumentError, "clip_value"),
]


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_arguments_are_explained(index: int) -> None:
    call, kind, words = BAD[index]
    with pytest.raises(kind, match=words):
        call()


# Schedules

SCHEDULES: list[tuple[Callable[[optim.Optimizer], Any], list[float]]] = [
    (lambda o: optim.StepLR(o, 2, gamma=0.5), [1, 1, 0.5, 0.5, 0.25, 0.25]),
    (lambda o: optim.MultiStepLR(o, [4, 1], gamma=0.5), [1, 0.5, 0.5, 0.5, 0.25, 0.25]),
    (lambda o: optim.ExponentialLR(o, 0.5), [1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
    (lambda o: optim.CosineAnnealingLR(o, 4),
     [(1 + math.cos(math.pi * t / 4)) / 2 for t in range(6)]),
    (lambda o: optim.LinearLR(o, start_factor=0.25, total_iters=3), [0.25, 0.5, 0.75, 1, 1, 1]),
    (lambda o: optim.LambdaLR(o, lambda t: 1 / (1 + t)), [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 6]),
]  # fmt: skip


@pytest.mark.parametrize(("make", "expected"), SCHEDULES)
def test_schedules(make: Callable[[optim.Optimizer], Any], expected: list[float]) -> None:
    optimizer = optim.SGD([{"params": [WEIGHT]}, {"params": [nn.Parameter(ug.ones(1))], "lr": 2.0}], lr=1.0)
    schedule = make(optimizer)

    def rates() -> Iterator[float]:
        for _ in expected:
            first, second = schedule.get_last_lr()
            assert second == pytest.approx(2 * first)
            yield first
            schedule.step()

    assert list(rates()) == pytest.approx(expected)
    saved = schedule.state_dict()
    other = make(optim.SGD([{"params": [nn.Parameter(ug.ones(1))]}, {"params": [WEIGHT]}], lr=3.0))
    other.load_state_dict(saved)
    assert other.get_last_lr() == schedule.get_last_lr()
    with pytest.raises(ArgumentError, match="groups"):
        make(optim.SGD([WEIGHT])).load_state_dict(saved)


def test_cosine_ends_at_its_floor() -> None:
    schedule = optim.CosineAnnealingLR(optim.SGD([WEIGHT], lr=1.0), 3, eta_min=0.25)
    for _ in range(3):
        schedule.step()
    assert schedule.get_last_lr() == [0.25]


def test_reduce_on_plateau() -> None:
    optimizer = optim.SGD([WEIGHT], lr=1.0)
    schedule = optim.ReduceLROnPlateau(optimizer, factor=0.5, patience=1, threshold=0.1, cooldown=1, min_lr=0.2)
    rates = []
    for value in (1.0, 0.95, 0.92, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5):
        schedule.step(ug.asarray(value))
        rates.append(schedule.get_last_lr()[0])
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2, 0.2, 0.2]
    other = optim.ReduceLROnPlateau(optimizer)
    other.load_state_dict(schedule.state_dict())
    assert other.state_dict() == schedule.state_dict()
    upward = optim.ReduceLROnPlateau(optimizer, mode="max", factor=0.5, patience=0, threshold_mode="abs", threshold=0.5)
    upward.step(1.0)
    upward.step(1.4)
    assert upward.get_last_lr() == [0.1]


# Clipping


@pytest.mark.parametrize("kind", [2.0, 1.0, 3.0, math.inf])
def test_clip_grad_norm(kind: float) -> None:
    params, gradients = start()
    for p, g in zip(params, gradients[0], strict=True):
        p.grad = ug.asarray(g)
    flat = np.concatenate([g.reshape(-1) for g in gradients[0]])
    total = np.linalg.norm(flat, kind)
    assert optim.clip_grad_norm_(params, 0.5, norm_type=kind) == pytest.approx(total)
    clipped = np.concatenate([p.grad.numpy().reshape(-1) for p in params if p.grad is not None])
    np.testing.assert_allclose(clipped, flat * 0.5 / total, rtol=1e-5)
    assert optim.clip_grad_norm_(params, 10.0, norm_type=kind) == pytest.approx(0.5, rel=1e-5)


def test_clipping_of_16_bit_gradients_and_non_finite_norms() -> None:
    p = nn.Parameter(ug.ones(2, dtype=ug.bfloat16))
    p.grad = ug.asarray([3.0, -4.0], dtype=ug.bfloat16)
    assert optim.clip_grad_norm_(p, 2.5) == 5.0
    assert p.grad.dtype is ug.bfloat16
    assert p.grad.to(ug.float32).tolist() == [1.5, -2.0]
    optim.clip_grad_value_([p], 1.75)
    assert p.grad.to(ug.float32).tolist() == [1.5, -1.75]
    p.grad = ug.asarray([math.nan, 1.0], dtype=ug.bfloat16)
    with pytest.raises(GradientError, match="nan"):
        optim.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
    assert math.isnan(optim.clip_grad_norm_(p, 1.0))
