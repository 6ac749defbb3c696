"""Policies of whole networks: what enters every kernel, overrides, updates, state, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.errors import ArgumentError, DivergenceError, FormatError, ShapeError
from ulpgrad.formats import Random, as_format
from ulpgrad.policy import DelayedScaling, DynamicFixed, Policy, Scaled

RNG = np.random.default_rng(5)
Array = np.ndarray[Any, Any]


def values(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def grid(x: Array, form: Any, rounding: str = "nearest_even", random: Random | None = None) -> Array:
    """The definition: codes of the format, saturating, and back."""
    form = as_format(form)
    return form.decode(form.encode(x, rounding, "saturate", True, random)).astype(x.dtype)


# What enters kernels


def test_inspect_lists_every_rounding() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    policy = Policy(weight="q1.6", activation="q3.4", gradient="float8_e5m2").bind(model)
    with policy.inspect() as seen:
        with policy:
            loss = ug.cross_entropy(model(ug.asarray(values(4, 8))), ug.zeros(4, dtype=int))
        loss.backward()
    assert {(r.where, r.role, r.format) for r in seen} >= {
        ("0", "weight", "q1.6"), ("0", "bias", "q1.6"), ("0", "activation", "q3.4"), ("2", "weight", "q1.6"),
        ("2", "gradient", "float8_e5m2"), ("0", "weight gradient", "float8_e5m2"), ("2", "bias gradient", "float8_e5m2"),
    }  # fmt: skip
    assert (
        sum(r.role == "activation" and r.where == "2" for r in seen) == 2
    )  # its input, on the grid already, and its result
    for p in model.parameters():
        assert p.grad is not None
        np.testing.assert_array_equal(p.grad.numpy(), grid(p.grad.numpy(), "float8_e5m2"))


def test_selections_stay_on_the_grid_and_a_write_takes_them_off() -> None:
    with Policy(weight="q2.5", activation="q2.5") as policy, policy.inspect() as seen:
        x = ug.relu(ug.asarray(values(3, 4)) * 1.0)
        first = ug.linear(x, ug.ones((2, 4))).numpy()
        x[0] = 0.3
        second = ug.linear(x, ug.ones((2, 4))).numpy()
    assert sum(r.role == "activation" for r in seen) == 5
    np.testing.assert_array_equal(second[0], grid(np.float32([4 * 0.3125] * 2), "q2.5"))
    np.testing.assert_array_equal(second[1:], first[1:])


def test_parameters_are_rounded_once_a_block() -> None:
    layer, x = nn.Linear(4, 3), ug.ones((2, 4))
    with Policy(weight="q2.5", activation="q2.5", rounding="stochastic") as policy, policy.inspect() as seen:
        layer(x)
        layer(x)
    assert [r.role for r in seen].count("weight") == 1


def test_float64_is_carried_in_float64() -> None:
    x = ug.asarray(RNG.standard_normal((3, 4)))
    assert x.dtype is ug.float64
    with Policy(weight="q2.40", activation="q2.40"):
        y = ug.linear(x, ug.asarray(RNG.standard_normal((2, 4))))
    assert y.dtype is ug.float64
    np.testing.assert_array_equal(y.numpy(), grid(y.numpy(), "q2.40"))


def test_16_bit_operands_are_carried_in_float32_and_output_is_stated() -> None:
    x = ug.ones((3, 4), dtype=ug.bfloat16)
    with ug.autocast("float8_e4m3fn"):
        assert (x @ x.T).dtype is ug.float32
        assert ug.softmax(x).dtype is ug.float32
        assert ug.relu(x).dtype is ug.bfloat16
    with ug.autocast("mxfp8_e4m3", output=ug.bfloat16):
        assert (x @ x.T).dtype is ug.bfloat16


def test_policies_nest_and_can_be_off() -> None:
    x = ug.asarray(values(3, 3))
    plain = (x @ x).numpy()
    with Policy(weight="q2.1", activation="q2.1"):
        coarse = (x @ x).numpy()
        with Policy(enabled=False):
            np.testing.assert_array_equal((x @ x).numpy(), plain)
        with ug.autocast(ug.bfloat16):
            assert (x @ x).dtype is ug.bfloat16
        with ug.autocast("float8_e4m3fn"):
            eight = grid(x.numpy(), "float8_e4m3fn")
            np.testing.assert_allclose((x @ x).numpy(), eight @ eight, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal((x @ x).numpy(), coarse)
    np.testing.assert_array_equal((x @ x).numpy(), plain)

    @Policy(weight="q2.1", activation="q2.1")
    def product() -> ug.Tensor:
        return x @ x

    np.testing.assert_array_equal(product().numpy(), coarse)


def test_vectors_batches_and_nothing() -> None:
    w, b = ug.asarray(values(3, 4)), ug.asarray(values(3))
    with Policy(weight="q2.5", activation="q2.5"), ug.no_grad():
        for shape in ((4,), (2, 5, 4), (0, 4)):
            x = values(*shape)
            y = ug.linear(ug.asarray(x), w, b, "tanh").numpy()
            assert y.shape == (*shape[:-1], 3)
            inner = grid(grid(x, "q2.5") @ grid(w.numpy(), "q2.5").T + grid(b.numpy(), "q2.5"), "q2.5")
            np.testing.assert_allclose(y, np.tanh(inner), atol=2.0**-5)
        with pytest.raises(ShapeError, match="linear"):
            ug.linear(ug.ones(()), w)
        with pytest.raises(ShapeError, match="inner sizes differ"):
            ug.matmul(ug.ones((2, 3)), ug.ones((4, 5)))


def test_biases_and_updates_may_be_functions() -> None:
    w, p = ug.asarray(values(3, 4)), nn.Parameter(ug.asarray(values(3)))
    policy = Policy(bias=lambda t: t * 2.0, update=lambda t: ug.round(t))
    with policy:
        y = ug.linear(ug.zeros((1, 4)), w, p)
    np.testing.assert_array_equal(y.detach().numpy()[0], 2 * p.detach().numpy())
    y.backward(ug.ones_like(y))
    assert p.grad is not None
    np.testing.assert_array_equal(p.grad.numpy(), 2)
    policy.step(ug.optim.SGD([p], lr=0.1))
    np.testing.assert_array_equal(p.detach().numpy(), np.rint(p.detach().numpy()))


# Overrides


def test_overrides_by_op() -> None:
    x = ug.asarray(values(4, 4))
    policy = Policy(
        weight="q2.2",
        activation="q2.2",
        overrides={"tanh": None, "exp": {"activation": "q3.4"}, "matmul": {"weight": None}},
    )
    functions = (ug.tanh, ug.exp, ug.sin)
    with policy:
        tanh, exp, sin = (function(x).numpy() for function in functions)
    plain = [function(x).numpy() for function in functions]
    np.testing.assert_array_equal(tanh, plain[0])
    np.testing.assert_array_equal(exp, grid(plain[1], "q3.4"))
    np.testing.assert_array_equal(sin, grid(plain[2], "q2.2"))


def test_overrides_by_module() -> None:
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    policy = Policy(weight="q2.5", activation="q2.5", update="q2.5", overrides={"2": None})
    with pytest.raises(ArgumentError, match="bind"):
        policy.__enter__()
    policy.bind(model)
    optimizer = ug.optim.SGD(model.parameters(), lr=0.1)
    with policy.inspect() as seen:
        with policy:
            loss = model(ug.asarray(values(4, 8))).sum()
        loss.backward()
        policy.step(optimizer)
    assert {r.where for r in seen} == {"0", "0.weight", "0.bias"}
    with pytest.raises(ArgumentError, match="fits no op"):
        Policy(overrides={"tail*": None}).bind(model)


# Updates


def test_step_keeps_parameters_on_the_grid() -> None:
    p = nn.Parameter(ug.asarray(values(50)))
    before = grid(p.detach().numpy(), "q1.4")
    policy = Policy(update="q1.4", rounding={"update": "stochastic"}, seed=2)
    optimizer = ug.optim.SGD([p], lr=0.01)
    p.grad = ug.ones(50)
    assert policy.step(optimizer)
    after = p.detach().numpy()
    words = ug.Generator(2).words(50)
    np.testing.assert_array_equal(
        after, grid(before - np.float32(0.01), "q1.4", rounding="stochastic", random=Random(words))
    )
    assert policy.steps == 1


def test_small_updates_survive_stochastic_rounding_only() -> None:
    for rounding, moved in (("nearest_even", False), ("stochastic", True)):
        p = nn.Parameter(ug.ones(400))
        policy = Policy(update="bfloat16", rounding={"update": rounding})
        optimizer = ug.optim.SGD([p], lr=2.0**-12)
        for _ in range(20):
            p.grad = ug.ones(400)
            policy.step(optimizer)
        mean = float(p.detach().mean().item())
        assert (mean < 1.0) == moved
        if moved:  # 20 * 2^-12 in all; the deviation of a mean of 400 is below 2^-12
            assert abs(mean - (1 - 20 * 2.0**-12)) < 5 * 2.0**-12


def test_a_scaler_may_stand_between() -> None:
    p = nn.Parameter(ug.ones(3))
    policy, scaler = Policy(update="q2.5"), ug.GradScaler(init_scale=8.0)
    optimizer = ug.optim.SGD([p], lr=1.0)
    p.grad = ug.asarray([8.0, float("inf"), 0.0])
    assert not policy.step(optimizer, scaler)
    scaler.update()
    p.grad = ug.asarray([4.0, 0.0, 0.0])
    assert policy.step(optimizer, scaler)
    np.testing.assert_array_equal(p.detach().numpy(), [0.0, 1.0, 1.0])


def test_parameters_that_are_not_finite_are_named() -> None:
    model = nn.Linear(2, 2)
    policy = Policy().bind(model)
    optimizer = ug.optim.SGD(model.parameters(), lr=1.0)
    assert model.bias is not None
    model.bias.grad = ug.asarray([0.0, float("nan")])
    with pytest.raises(DivergenceError, match="bias") as caught:
        policy.step(optimizer)
    assert (caught.value.step, caught.value.where, caught.value.role) == (0, "bias", "update")


def test_nan_into_fixed_point_says_where() -> None:
    x = ug.asarray([[1.0, float("nan")]])
    with Policy(weight="q2.5", activation="q2.5"), pytest.raises(DivergenceError, match=r"linear\.0.*q2\.5") as caught:
        ug.linear(x, ug.ones((2, 2)))
    assert (caught.value.role, caught.value.format) == ("activation", "q2.5")


# State


def test_state_goes_on() -> None:
    def run(policy: Policy, steps: int) -> Array:
        model = nn.Linear(4, 3)
        model.weight.storage[...] = np.arange(12, dtype=np.float32).reshape(3, 4) / 8
        out: Array = np.zeros(0)
        for _ in range(steps):
            with policy:
                y = model(ug.ones((2, 4)) * 0.37)
            y.backward(ug.ones_like(y))
            assert model.weight.grad is not None
            out = model.weight.grad.numpy()
            model.zero_grad()
        return out

    def make() -> Policy:
        return Policy(
            weight=Scaled("float8_e4m3fn"), activation=DynamicFixed(interval=3), gradient="q2.5", rounding="stochastic"
        )

    whole = make()
    run(whole, 4)
    half = make()
    run(half, 4)
    other = make()
    other.load_state_dict(half.state_dict())
    assert other.state_dict() == half.state_dict()
    np.testing.assert_array_equal(run(whole, 5), run(other, 5))
    with pytest.raises(ArgumentError, match="state_dict"):
        other.load_state_dict({})


# Bad input


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"gradient": "float8_e8m0fnu"}, FormatError, "gradient"),
        ({"gradient": "uq4.4"}, FormatError, "signs"),
        ({"weight": "int8"}, FormatError, "weight=int8"),
        ({"update": "mxfp8_e4m3"}, FormatError, "update"),
        ({"weight": "float9"}, FormatError, "float9"),
        ({"overrides": {"linear": {"wheel": None}}}, ArgumentError, "unknown role 'wheel'"),
        ({"overrides": {"linear": "q2.5"}}, ArgumentError, "dict of roles"),
        ({"overrides": {"linear": {"update": "q2.5"}}}, ArgumentError, "parameters"),
        ({"rounding": "upwards"}, ArgumentError, "upwards"),
        ({"rounding": {"wheel": "up"}}, ArgumentError, "wheel"),
        ({"weight": "q2.5", "overflow": "ieee"}, ArgumentError, "overflow='ieee'"),
        ({"estimator": "magic"}, ArgumentError, "magic"),
        ({"output": "q2.5"}, FormatError, "output"),
        ({"accumulate": "int32", "weight": "float8_e5m2", "activation": "q2.5"}, FormatError, "adds integers"),
        ({"accumulate": "int32", "weight": "q20.10", "activation": "q2.5"}, FormatError, "at most 16 bits"),
        ({"accumulate": "int33", "weight": "q2.5", "activation": "q2.5"}, FormatError, "int33"),
    ],
)
def test_bad_settings_are_explained(settings: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Policy(**settings)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Scaled("float8_e4m3fn", history=0),
        lambda: Scaled("float8_e4m3fn", margin=float("nan")),
        lambda: DynamicFixed(bits=1),
        lambda: DynamicFixed(max_overflow_rate=1.0),
        lambda: DelayedScaling(history=0),
        lambda: DynamicFixed(interval=0),
    ],
)
def test_bad_choosers_are_explained(make: Callable[[], Any]) -> None:
    with pytest.raises(ArgumentError):
        make()
