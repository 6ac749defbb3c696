"""Mixed precision: the format of every op under autocast, and GradScaler's rules to the step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.testing import gradcheck

X = ug.asarray(np.random.default_rng(0).standard_normal((2, 3, 4, 4)).astype(np.float32))
W = ug.ones((2, 3, 3, 3))
ROWS = X.reshape(6, 16)

LOW: dict[str, Callable[..., ug.Tensor]] = {
    "matmul": lambda x: x @ x,
    "linear": lambda x: ug.linear(x, ug.ones((5, 4)), ug.ones(5)),
    "conv2d": lambda x: ug.conv2d(x, W),
    "attention": lambda x: ug.scaled_dot_product_attention(x, x, x),
    "einsum": lambda x: ug.einsum("nchw,nckw->nchk", x, x),
}
WIDE: dict[str, Callable[..., ug.Tensor]] = {
    "sum": lambda x: x.sum(),
    "mean": lambda x: x.mean(axis=1),
    "var": lambda x: x.var(),
    "prod": lambda x: x.prod(axis=0),
    "cumulative_sum": lambda x: ug.cumulative_sum(x, axis=1),
    "softmax": ug.softmax,
    "log_softmax": ug.log_softmax,
    "layer_norm": lambda x: ug.layer_norm(x, 4),
    "rms_norm": lambda x: ug.rms_norm(x, 4),
    "batch_norm": lambda x: ug.batch_norm(x, None, None, training=True),
    "batch_norm, running": lambda x: ug.batch_norm(x, ug.zeros(3), ug.ones(3)),
    "cross_entropy": lambda x: ug.cross_entropy(x.reshape(6, 16), ug.zeros(6, dtype=int)),
    "cross_entropy, weighted": lambda x: ug.cross_entropy(x.reshape(6, 16), ug.zeros(6, dtype=int), ug.ones(16)),
    "cross_entropy, chances": lambda x: ug.cross_entropy(x.reshape(6, 16), ug.ones((6, 16))),
    "nll_loss": lambda x: ug.nll_loss(x.reshape(6, 16), ug.zeros(6, dtype=int)),
    "mse_loss": lambda x: ug.mse_loss(x, x, reduction="none"),
    "bce_with_logits": lambda x: ug.bce_with_logits(x, x, reduction="none"),
}
FOLLOWS: dict[str, Callable[..., ug.Tensor]] = {
    "relu": ug.relu,
    "add": lambda x: x + x,
    "max": lambda x: x.max(axis=1),
    "max_pool2d": lambda x: ug.max_pool2d(x, 2),
    "adaptive_max_pool2d": lambda x: ug.adaptive_max_pool2d(x, 3),
    "dropout": ug.dropout,
    "reshape": lambda x: x.reshape(-1),
}


@pytest.mark.parametrize("low", [ug.bfloat16, ug.float16])
@pytest.mark.parametrize("given", [ug.float32, ug.bfloat16, ug.float16])
def test_formats_under_autocast(low: ug.Format, given: ug.Format) -> None:
    x = X.to(given)
    with ug.autocast(low):
        for name, function in LOW.items():
            assert function(x).dtype is low, name
        for name, function in WIDE.items():
            assert function(x).dtype is ug.float32, name
        for name, function in FOLLOWS.items():
            assert function(x).dtype is given, name
    assert (x @ x).dtype is given


def test_float64_and_integers_are_left_alone() -> None:
    x = X.to(ug.float64)
    with ug.autocast():
        for name, function in {**LOW, **WIDE, **FOLLOWS}.items():
            assert function(x).dtype is ug.float64, name
        assert ug.asarray([1, 2]).sum().dtype is ug.int64
        gradcheck(lambda a: ug.softmax(a @ a), [ug.asarray(np.eye(3) + 0.1, requires_grad=True)])


def test_low_results_are_those_of_converted_operands() -> None:
    low = X.to(ug.bfloat16)
    with ug.autocast():
        np.testing.assert_array_equal((X @ X).numpy(), (low @ low).numpy())
        np.testing.assert_array_equal(low.mean().numpy(), low.to(ug.float32).mean().numpy())


def test_blocks_nest_and_can_be_off() -> None:
    with ug.autocast(ug.bfloat16):
        with ug.autocast(ug.float16):
            assert (X @ X).dtype is ug.float16
        assert (X @ X).dtype is ug.bfloat16
        with ug.autocast(enabled=False):
            assert (X @ X).dtype is ug.float32
        assert (X @ X).dtype is ug.bfloat16
    assert (X @ X).dtype is ug.float32

    @ug.autocast(ug.float16)
    def product() -> ug.Tensor:
        return X @ X

    assert product().dtype is ug.float16


def test_autocast_holds_for_one_thread() -> None:
    found: list[ug.Format] = []
    with ug.autocast():
        thread = threading.Thread(target=lambda: found.append((X @ X).dtype))
        thread.start()
        thread.join()
    assert found == [ug.float32]


@pytest.mark.parametrize("form", ["float32", "int16", "float64"])
def test_autocast_refuses_other_formats(form: str) -> None:
    with pytest.raises(FormatError, match="bfloat16 or float16"):
        ug.autocast(form)


def casts_of(layer: nn.Linear, x: ug.Tensor, capsys: pytest.CaptureFixture[str]) -> int:
    """How often a forward pass converts the weight."""
    ug.log_kernels()
    try:
        layer(x)
    finally:
        ug.log_kernels(False)
    return sum(line.startswith("cast") and "[5,4]" in line for line in capsys.readouterr().err.splitlines())


def test_parameters_are_converted_once_per_block(capsys: pytest.CaptureFixture[str]) -> None:
    layer, x = nn.Linear(4, 5), ug.ones((2, 4))
    optimizer = ug.optim.SGD(layer.parameters(), lr=0.5)
    with ug.autocast() as policy:
        assert casts_of(layer, x, capsys) == 1
        assert casts_of(layer, x, capsys) == 0
        layer(x).sum().backward()
        first = layer.weight.grad
        layer(x).sum().backward()  # the cast's place in the graph was freed: it is made again
        assert layer.weight.grad is not None
        assert first is not None
        np.testing.assert_array_equal(layer.weight.grad.numpy(), 2 * first.numpy())
        before = layer(x).detach()
        optimizer.step()
        assert (layer(x) != before).any()  # written to: converted anew
        with ug.no_grad():
            assert not layer(x).requires_grad
        assert layer(x).requires_grad
    with policy:
        assert casts_of(layer, x, capsys) == 1


def test_gradients_have_their_parameters_formats() -> None:
    model = nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))
    with ug.autocast():
        loss = ug.cross_entropy(model(ROWS), ug.zeros(6, dtype=int))
    loss.backward()
    mixed = [p.grad for p in model.parameters()]
    model.zero_grad()
    ug.cross_entropy(model(ROWS), ug.zeros(6, dtype=int)).backward()
    for low, p in zip(mixed, model.parameters(), strict=True):
        assert low is not None
        assert p.grad is not None
        assert low.dtype is ug.float32
        np.testing.assert_allclose(low.numpy(), p.grad.numpy(), atol=0.02)


def test_backward_inside_a_block_computes_as_forward_did() -> None:
    x = ug.asarray(X.numpy(), requires_grad=True)
    y = x @ X
    seed = ug.ones_like(y)
    outside = ug.grad(y, x, seed, retain_graph=True)
    with ug.autocast():
        inside = ug.grad(y, x, seed)
    np.testing.assert_array_equal(inside.numpy(), outside.numpy())


# GradScaler


def scaled(optimizer: ug.optim.Optimizer, scaler: ug.GradScaler, gradient: float) -> None:
    """Give the one parameter a gradient as backward of a scaled loss would."""
    p = optimizer.param_groups[0]["params"][0]
    p.grad = ug.asarray([gradient * scaler.get_scale()])


def one_parameter() -> tuple[nn.Parameter, ug.optim.SGD]:
    p = nn.Parameter(ug.asarray([1.0]))
    return p, ug.optim.SGD([p], lr=0.5)


def test_defaults_are_torchs() -> None:
    scaler = ug.GradScaler()
    assert scaler.get_scale() == 65536.0
    assert (scaler.growth_factor, scaler.backoff_factor, scaler.growth_interval) == (2.0, 0.5, 2000)


def test_scale_grows_when_the_count_equals_the_interval() -> None:
    p, optimizer = one_parameter()
    scaler = ug.GradScaler(init_scale=8.0, growth_interval=3)
    scales = []
    for _ in range(7):
        scaled(optimizer, scaler, 0.25)
        assert scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    assert scales == [8.0, 8.0, 16.0, 16.0, 16.0, 32.0, 32.0]
    assert p.item() == 1.0 - 7 * 0.5 * 0.25


@pytest.mark.parametrize("bad", [float("inf"), float("nan"), -float("inf")])
def test_a_gradient_that_is_not_finite_skips_the_step(bad: float) -> None:
    p, optimizer = one_parameter()
    scaler = ug.GradScaler(init_scale=8.0, growth_interval=2)
    scaled(optimizer, scaler, 0.0)
    scaler.step(optimizer)
    scaler.update()
    scaled(optimizer, scaler, bad)
    assert not scaler.step(optimizer)
    scaler.update()
    assert (p.item(), scaler.get_scale(), scaler.skipped) == (1.0, 4.0, 1)
    scaled(optimizer, scaler, 0.0)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 4.0  # the count began anew
    scaled(optimizer, scaler, 0.0)
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 8.0


def test_scale_stays_within_its_floor_and_what_is_finite() -> None:
    _, optimizer = one_parameter()
    scaler = ug.GradScaler(init_scale=4.0, min_scale=1.5, growth_interval=1)
    for expected in (2.0, 1.5, 1.5):
        scaled(optimizer, scaler, float("inf"))
        scaler.step(optimizer)
        scaler.update()
        assert scaler.get_scale() == expected
    assert scaler.skipped == 3
    large = ug.GradScaler(init_scale=2.0**127, growth_interval=1)
    scaled(optimizer, large, 0.0)
    large.step(optimizer)
    large.update()
    assert large.get_scale() == 2.0**127


def test_unscale_happens_once() -> None:
    p, optimizer = one_parameter()
    scaler = ug.GradScaler(init_scale=8.0)
    scaled(optimizer, scaler, 3.0)
    scaler.unscale_(optimizer)
    assert p.grad is not None
    assert p.grad.item() == 3.0
    with pytest.raises(ArgumentError, match="unscaled already"):
        scaler.unscale_(optimizer)
    ug.optim.clip_grad_norm_([p], 1.0)
    scaler.step(optimizer)
    assert p.item() == pytest.approx(0.5, abs=1e-6)
    with pytest.raises(ArgumentError, match=r"step\(\) was called"):
        scaler.step(optimizer)
    scaler.update()
    with pytest.raises(ArgumentError, match="without a step"):
        scaler.update()


def test_shared_gradients_are_divided_once_each() -> None:
    a, b = nn.Parameter(ug.asarray([1.0])), nn.Parameter(ug.asarray([2.0]))
    optimizer, scaler = ug.optim.SGD([a, b], lr=1.0), ug.GradScaler(init_scale=4.0)
    scaler.scale((a + b).sum()).backward()  # both get the same gradient
    scaler.step(optimizer)
    assert (a.item(), b.item()) == (0.0, 1.0)


def test_float16_gradients_do_not_vanish() -> None:
    p = nn.Parameter(ug.asarray([1.0], dtype=ug.float16))
    optimizer, scaler = ug.optim.SGD([p], lr=2.0**20), ug.GradScaler(init_scale=2.0**14)
    loss = (p * 2.0**-14).sum() * 2.0**-14  # the gradient is 2^-28, below float16's least value
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    assert p.grad is not None
    assert p.grad.dtype is ug.float32
    assert p.grad.item() == 2.0**-28
    scaler.step(optimizer)
    assert p.item() == 1.0 - 2.0**-8


def test_state_and_being_disabled() -> None:
    p, optimizer = one_parameter()
    scaler = ug.GradScaler(init_scale=8.0, growth_interval=5)
    scaled(optimizer, scaler, float("nan"))
    scaler.step(optimizer)
    scaler.update()
    other = ug.GradScaler()
    other.load_state_dict(scaler.state_dict())
    assert other.state_dict() == scaler.state_dict()
    assert (other.get_scale(), other.skipped, other.growth_interval) == (4.0, 1, 5)

    off = ug.GradScaler(enabled=False)
    loss = ug.asarray(3.0)
    assert off.scale(loss) is loss
    p.grad = ug.asarray([2.0])
    assert off.step(optimizer)
    off.update()
    assert (p.item(), off.get_scale(), off.state_dict()) == (0.0, 1.0, {})
    with pytest.raises(ArgumentError, match="disabled"):
        other.load_state_dict({})


@pytest.mark.parametrize("settings", [
    {"init_scale": 0.0}, {"growth_factor": 1.0}, {"backoff_factor": 1.0}, {"growth_interval": 0}, {"min_scale": 0.0},
    {"init_scale": float("inf")},
])  # fmt: skip
def test_bad_settings_are_explained(settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        ug.GradScaler(**settings)
