"""Convolution with what follows it in one kernel: the same as step by step, with gradients, and only where it may be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch, nn
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.kernels import native
from ulpgrad.testing import gradcheck


def values(*shape: int, seed: int = 0, dtype: Any = ug.float32) -> ug.Tensor:
    return ug.asarray(np.random.default_rng(seed).normal(size=shape), dtype=dtype)


def ops_of(call: Any) -> list[str]:
    return [op.name for op, *_ in dispatch.calls_of(call)]


def operands(dtype: Any = ug.float32) -> tuple[ug.Tensor, ug.Tensor, ug.Tensor]:
    return values(2, 3, 9, 8, dtype=dtype), values(5, 3, 3, 3, seed=1, dtype=dtype), values(5, seed=2, dtype=dtype)


def steps(x: Any, w: Any, b: Any, activation: str | None, window: Any, **how: Any) -> Any:
    y = ug.conv2d(x, w, b, **how)
    y = y if activation is None else getattr(ug, activation)(y)
    return y if window is None else ug.max_pool2d(y, window)


CASES = [(a, w) for a in (None, "relu", "gelu", "silu", "tanh", "sigmoid") for w in (None, 2, (3, 1))][1:]


@pytest.mark.parametrize(("activation", "window"), CASES)
@pytest.mark.parametrize("last", [False, True], ids=["channels first", "channels last"])
def test_the_same_as_step_by_step(activation: str | None, window: Any, last: bool) -> None:
    x, w, b = operands()
    if last:
        x = ug.permute_dims(ug.asarray(np.ascontiguousarray(x.numpy().transpose(0, 2, 3, 1))), (0, 3, 1, 2))
    for how in ({}, {"padding": 1, "stride": 2}, {"padding": "valid"}, {"padding": "same"}):
        got = ug.conv2d(x, w, b, **how, activation=activation, max_pool=window)  # type: ignore[arg-type]
        want = steps(x, w, b, activation, window, **how)
        assert got.shape == want.shape
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("activation", "window"), CASES)
def test_gradients(activation: str | None, window: Any) -> None:
    x, w, b = (t.requires_grad_() for t in operands(ug.float64))
    for bias in (b, None):
        gradcheck(
            lambda *t: ug.conv2d(*t, padding=1, activation=activation, max_pool=window),
            [x, w] if bias is None else [x, w, bias],
        )


@pytest.mark.parametrize("window", [None, 2])
def test_second_derivatives_go_step_by_step(window: Any) -> None:
    inputs = [t.requires_grad_() for t in operands(ug.float64)]
    gradcheck(lambda x, w, b: ug.conv2d(x, w, b, activation="relu", max_pool=window), inputs, order=2)


def test_one_operand_alone() -> None:
    for position in range(3):
        for window in (None, 2):
            fused, plain = ([t.detach() for t in operands()] for _ in range(2))
            fused[position].requires_grad_()
            plain[position].requires_grad_()
            ug.sum(ug.conv2d(*fused, activation="relu", max_pool=window) ** 2).backward()
            ug.sum(steps(*plain, "relu", window) ** 2).backward()
            got, want = fused[position].grad, plain[position].grad
            assert got is not None
            assert want is not None
            np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)


def test_one_kernel_where_it_may_be() -> None:
    x, w, b = operands()
    one = ["conv2d"]
    assert ops_of(lambda: ug.conv2d(x, w, b, activation="gelu")) == one
    assert ops_of(lambda: ug.conv2d(x, w, b, activation="relu", max_pool=2)) == ["conv2d_max_pool"]
    assert ops_of(lambda: ug.conv2d(x, w, b, activation="gelu", max_pool=2)) == ["conv2d", "gelu", "max_pool2d"]
    w.requires_grad_()
    assert ops_of(lambda: ug.conv2d(x, w, b, activation="relu")) == one
    assert ops_of(lambda: ug.conv2d(x, w, b, activation="gelu")) == ["conv2d", "gelu"]
    with ug.autocast("bfloat16"):
        assert "conv2d_max_pool" in ops_of(lambda: ug.conv2d(x, w, b, activation="relu", max_pool=2))
    with ug.autocast("float8_e4m3fn"):
        assert "relu" in ops_of(lambda: ug.conv2d(x, w, b, activation="relu", max_pool=2))


def test_autocast_gives_the_bits_of_the_steps() -> None:
    results = []
    for call in (steps, lambda x, w, b, activation, pool: ug.conv2d(x, w, b, activation=activation, max_pool=pool)):
        x, w, b = operands()
        w.requires_grad_()
        with ug.autocast("bfloat16"):
            out = call(x, w, b, "relu", 2)
        out.sum().backward()
        assert out.dtype is ug.bfloat16
        results.append((out.storage.tobytes(), w.grad.numpy().tobytes()))  # type: ignore[union-attr]
    assert results[0] == results[1]


def test_other_number_systems_take_every_step() -> None:
    x, w, b = (t.to(ug.Q(7, 8)) for t in operands())
    got = ug.conv2d(x, w, b, activation="relu", max_pool=2)
    np.testing.assert_array_equal(got.storage, steps(x, w, b, "relu", 2).storage)


def test_chosen_accumulators_take_every_step() -> None:
    x, w, b = operands()
    got = ug.conv2d(x, w, b, activation="relu", max_pool=2, accumulate="bfloat16")
    np.testing.assert_array_equal(got.numpy(), steps(x, w, b, "relu", 2, accumulate="bfloat16").numpy())


def test_sequential_joins_them() -> None:
    layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 1), nn.GELU(), nn.Flatten())
    net, x = nn.Sequential(*layers), values(2, 3, 9, 8)
    want = x
    for layer in layers:
        want = layer(want)
    np.testing.assert_allclose(net(x).detach().numpy(), want.detach().numpy(), rtol=1e-5, atol=1e-6)
    assert ops_of(lambda: net(x)) == ["conv2d_max_pool", "conv2d", "gelu"]
    with ug.no_grad():
        assert ops_of(lambda: net(x)) == ["conv2d_max_pool", "conv2d"]
    apart = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, stride=2), nn.LeakyReLU())
    assert ops_of(lambda: apart(x)) == ["conv2d", "max_pool2d", "leaky_relu"]


def test_errors_say_what_was_expected() -> None:
    x, w, b = operands()
    with pytest.raises(ArgumentError, match="unknown activation 'relo'; expected None or one of relu"):
        ug.conv2d(x, w, b, activation="relo")
    with pytest.raises(ArgumentError, match="max_pool"):
        ug.conv2d(x, w, b, max_pool=0)
    with pytest.raises(ShapeError, match=r"windows of \(20, 20\) are larger than the convolution's result, \(7, 6\)"):
        ug.conv2d(x, w, b, max_pool=20)


def finished(x: Any, w: Any, b: Any, s: Any, r: Any, activation: Any, first: bool) -> np.ndarray:
    """In float64: scale, bias, residual before or behind the activation."""
    y = ug.conv2d(*(t.to(ug.float64) for t in (x, w)), padding=1)
    y = y if s is None else y * s.to(ug.float64).reshape(-1, 1, 1)
    y = y if b is None else y + b.to(ug.float64).reshape(-1, 1, 1)
    y = y if r is None or not first else y + r.to(ug.float64)
    y = y if activation is None else getattr(ug, activation)(y)
    return (y if r is None or first else y + r.to(ug.float64)).numpy()


UNIT = {ug.float32: 2.0**-24, ug.float64: 2.0**-53, ug.bfloat16: 2.0**-8, ug.float16: 2.0**-11}


@pytest.mark.parametrize("dtype", [ug.float32, ug.float64, ug.bfloat16], ids=str)
@pytest.mark.parametrize("out", [None, ug.float32, ug.float16, ug.bfloat16, ug.float8_e4m3fn], ids=str)
@pytest.mark.parametrize(("activation", "first"), [(None, False), ("relu", True), ("silu", False)])
def test_scale_residual_and_format_are_rounded_once(dtype: Any, out: Any, activation: Any, first: bool) -> None:
    x, w, b = operands(dtype)
    s, r = values(5, seed=3, dtype=dtype), values(2, 5, 9, 8, seed=4, dtype=dtype)
    for given in ((b, s, r), (None, s, None), (b, None, r), (b, None, None)):
        bias, scale, residual = given
        options: dict[str, Any] = {"scale": scale, "residual": residual, "dtype": out, "activation": activation}
        got = ug.conv2d(x, w, bias, padding=1, residual_first=first, **options)
        want = finished(x, w, bias, scale, residual, activation, first)
        form = dtype if out is None else out
        assert got.dtype is form
        if form is ug.float8_e4m3fn:
            exact = ug.asarray(want).to(form)
            assert (
                exact.storage == got.storage
            ).mean() > 0.99  # sums of float32 may lie on the other side of a midpoint
            continue
        least = 2.0**-25 if form is ug.float16 else 0.0  # half of its smallest number
        sums = UNIT[ug.float64 if dtype is ug.float64 else ug.float32]
        np.testing.assert_allclose(
            got.to(ug.float64).numpy(), want, rtol=UNIT[form] * 1.01 + 32 * sums, atol=64 * sums + least
        )


def test_finished_convolution_is_one_kernel_in_inference_and_steps_under_gradients() -> None:
    x, w, b = operands(ug.float64)
    s, r = values(5, seed=3, dtype=ug.float64), values(2, 5, 9, 8, seed=4, dtype=ug.float64)

    def call(x: Any, w: Any, b: Any, s: Any, r: Any) -> Any:
        return ug.conv2d(x, w, b, padding=1, scale=s, residual=r, residual_first=True, activation="silu")

    assert ops_of(lambda: call(x, w, b, s, r)) == ["conv2d_finished"]
    with ug.use(conv2d="cpu/reference"):
        assert ops_of(lambda: call(x, w, b, s, r))[0] == "conv2d"
    gradcheck(call, [t.requires_grad_() for t in (x, w, b, s, r)], order=2)
    fixed = [t.detach().to(ug.Q(7, 8)) for t in (x, w, b, s, r)]
    got = ug.conv2d(*fixed[:3], padding=1, scale=fixed[3], residual=fixed[4], residual_first=True, activation="relu")
    assert got.dtype is ug.Q(7, 8)
    same = ug.conv2d(x, w, b, padding="same", scale=s, residual=r, residual_first=True, activation="silu")
    np.testing.assert_allclose(same.detach().numpy(), call(x, w, b, s, r).detach().numpy(), rtol=1e-12, atol=1e-12)


def test_finished_convolution_refuses() -> None:
    x, w, b = operands()
    for padding in (1, "same"):
        with pytest.raises(ShapeError, match=r"scale has shape \(4,\): expected \(5,\)"):
            ug.conv2d(x, w, b, padding=padding, scale=ug.ones(4))  # type: ignore[arg-type]
        with pytest.raises(
            ShapeError, match=r"residual has shape \(2, 5, 9, 9\): expected the result's, \(2, 5, 9, 8\)"
        ):
            ug.conv2d(x, w, b, padding=padding, residual=ug.ones((2, 5, 9, 9)))  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="max_pool= goes with activation= alone"):
        ug.conv2d(x, w, b, max_pool=2, scale=ug.ones(5))


def test_batch_norm_in_inference_is_a_scale_and_a_shift() -> None:
    ug.manual_seed(0)
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean[...], norm.running_var[...] = values(4), values(4, seed=1) ** 2 + 0.5
    norm.eval()
    x = values(2, 3, 9, 8)
    with ug.no_grad():
        r = values(2, 4, 7, 6, seed=5)
        want = ug.relu(norm(conv(x)) + r)
        got = conv.normalized(x, norm, "relu", residual=r, residual_first=True)
        assert ops_of(lambda: conv.normalized(x, norm, "relu"))[-1] == "conv2d_finished"
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)
    net = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten())
    with ug.no_grad():
        steps = nn.Flatten()(ug.relu(norm(conv(x))))
        np.testing.assert_allclose(net(x).numpy(), steps.numpy(), rtol=1e-5, atol=1e-5)
        assert ("conv2d_finished" in ops_of(lambda: net(x))) == (native.missing() is None)
    assert ops_of(lambda: net(x))[0] == "conv2d"  # whose gradient is recorded
    with pytest.raises(ArgumentError, match="running statistics"):
        nn.BatchNorm2d(4, track_running_stats=False).scale_and_shift()


@pytest.mark.parametrize("options", [
    {"activation": "gelu"}, {"padding": "same", "bias": ug.asarray([1.0, -2.0, 0.5, 3.0])}, {"groups": 2, "stride": 2},
    {"residual": ug.full((2, 4, 5, 4), 0.3), "residual_first": True, "activation": "relu"},
    {"scale": ug.asarray([3.0, 0.1, -1.0, 7.0]), "accumulate": "float16"},
], ids=lambda o: "-".join(o))  # fmt: skip
@pytest.mark.parametrize("to", ["bfloat16", "float8_e4m3fn", "e6m9"])
def test_stochastic_results(options: dict[str, Any], to: str) -> None:
    """Those of `quantize` on the result in float32, whose gradient they have."""
    x, w = ug.rand(2, 4, 7, 6, dtype="float16"), ug.rand(4, 2 if "groups" in options else 4, 3, 3, requires_grad=True)
    wide = ug.conv2d(x.to(ug.float32), w, **options, dtype=ug.float32)
    wanted = ug.quantize(wide.detach(), to, rounding="stochastic", generator=ug.Generator(4), random_bits=13)
    for recorded in (True, False):
        w.requires_grad = recorded
        drawn = {"dtype": to, "rounding": "stochastic", "generator": ug.Generator(4), "random_bits": 13}
        y = ug.conv2d(x, w, **options, **drawn)
        assert y.dtype is wanted.dtype
        assert y.storage.tobytes() == wanted.storage.tobytes()
        if recorded:
            (found,) = ug.autograd.grad(y.sum(), [w])
            (same,) = ug.autograd.grad(wide.sum(), [w])
            np.testing.assert_allclose(found.numpy(), same.numpy(), rtol=1e-5)
