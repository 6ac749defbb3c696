"""Formats that follow the values: delayed scaling, dynamic fixed point, and DoReFa's quantisers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import as_format
from ulpgrad.policy import DelayedScaling, DynamicFixed, Policy, Scaled, dorefa

RNG = np.random.default_rng(7)
Array = np.ndarray[Any, Any]
E4M3, E5M2 = as_format("float8_e4m3fn"), as_format("float8_e5m2")


def values(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def grid(x: Array, form: Any) -> Array:
    form = as_format(form)
    return form.decode(form.encode(x, "nearest_even", "saturate")).astype(x.dtype)


def once(policy: Policy, x: Array, w: ug.Tensor, g: Array) -> tuple[Array, Array, Array]:
    """A layer's result and its gradients."""
    w.grad = None
    leaf = ug.asarray(x, requires_grad=True)
    with policy:
        y = ug.linear(leaf, w)
    y.backward(ug.asarray(g))
    assert leaf.grad is not None
    assert w.grad is not None
    return y.detach().numpy(), leaf.grad.numpy(), w.grad.numpy()


# Delayed scaling


def test_scales_come_from_the_uses_before() -> None:
    policy = DelayedScaling(history=2, margin=1)
    w = nn.Parameter(ug.asarray(values(5, 8)))
    sx = sw = sg = np.float32(1)
    seen: list[tuple[float, float, float]] = []
    for step in range(5):
        x, g = values(4, 8) * np.float32(2.0**step), values(4, 5) * np.float32(1e-3 / 3.0**step)
        y, dx, dw = once(policy, x, w, g)
        kept = w.detach().numpy()
        qx, qw, qg = grid(x * sx, E4M3), grid(kept * sw, E4M3), grid(g * sg, E5M2)
        np.testing.assert_allclose(y, (qx @ qw.T) / sx / sw, rtol=1e-5, atol=1e-5 * np.abs(y).max())
        np.testing.assert_allclose(dx, (qg @ qw) / sg / sw, rtol=1e-5, atol=1e-5 * np.abs(dx).max())
        np.testing.assert_allclose(dw, (qg.T @ qx) / sg / sx, rtol=1e-5, atol=1e-5 * np.abs(dw).max())
        seen.append((float(np.abs(x).max()), float(np.abs(kept).max()), float(np.abs(g).max())))
        amax = [max(column) for column in zip(*seen[-2:], strict=True)]  # the history's length is 2
        sx, sw, sg = (np.float32(form.max / a / 2) for form, a in zip((E4M3, E4M3, E5M2), amax, strict=True))


@pytest.mark.parametrize("bad", [0.0, math.inf, math.nan])
def test_an_amax_of_zero_or_not_finite_keeps_the_scale(bad: float) -> None:
    scale = Scaled(E4M3, history=1).quantizer("weight", "nearest_even", "saturate", ug.Generator())
    scale.round(np.float32([7.0]))
    scale.round(np.full(3, bad, np.float32))
    assert scale.scale == 64.0
    scale.round(np.float32([1.0]))
    assert scale.scale == 448.0


def test_a_history_slides() -> None:
    scale = Scaled(E4M3, history=3).quantizer("weight", "nearest_even", "saturate", ug.Generator())
    amaxes = [2.0, 7.0, 1.0, 3.0, 3.0, math.nan, 1.0, 1.0, 4.0, math.inf, 0.0, 0.0, 0.0, 5.0]
    kept = 1.0
    for i, amax in enumerate(amaxes):
        scale.round(np.float32([amax]))
        window = amaxes[max(0, i - 2) : i + 1]
        if all(map(math.isfinite, window)) and max(window):
            kept = float(np.float32(448 / max(window)))
        assert scale.scale == kept


def test_places_have_scales_of_their_own() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    policy = DelayedScaling().bind(model)
    for _ in range(2):
        with policy:
            loss = model(ug.asarray(values(4, 6))).sum()
        loss.backward()
    state = policy.state_dict()["places"]
    assert set(state) == {
        f"{role} of {module}{', input' if role == 'activation' else ''}"
        for role in ("weight", "activation", "gradient") for module in ("0", "1")
    }  # fmt: skip
    assert state["weight of 0"]["amaxes"] == [float(np.abs(model[0].weight.detach().numpy()).max())] * 2
    state["weight of 0"]["scale"] = 0.0
    other = DelayedScaling().bind(model)
    other.load_state_dict({**policy.state_dict(), "places": state})
    with other, pytest.raises(ArgumentError, match="scale"):
        model(ug.asarray(values(4, 6)))


def test_evaluation_moves_nothing() -> None:
    w = nn.Parameter(ug.asarray(values(5, 8)))
    for policy in (DelayedScaling(), Policy(weight=DynamicFixed(), activation=DynamicFixed(interval=1))):
        once(policy, values(4, 8), w, values(4, 5))
        before = policy.state_dict()
        with policy, ug.no_grad():
            ug.linear(ug.asarray(values(4, 8) * np.float32(100)), w)
        assert policy.state_dict() == before


def test_hybrid_formats_and_what_is_left_alone() -> None:
    w = nn.Parameter(ug.asarray(values(5, 8)))
    policy = DelayedScaling()
    with policy.inspect() as seen:
        once(policy, values(4, 8), w, values(4, 5))
    assert {(r.role, r.format) for r in seen} == {
        ("weight", "float8_e4m3fn"), ("activation", "float8_e4m3fn"), ("gradient", "float8_e5m2")
    }  # fmt: skip
    x = ug.asarray(values(4, 4))
    with policy:
        inside = ug.tanh(x).numpy()
    np.testing.assert_array_equal(inside, ug.tanh(x).numpy())


def test_a_convolution_with_a_bias() -> None:
    x, w, b = values(2, 3, 6, 6), ug.asarray(values(4, 3, 3, 3)), values(4)
    policy = DelayedScaling()
    for _ in range(2):  # the place is known by its weight
        with policy:
            y = ug.conv2d(ug.asarray(x), w, ug.asarray(b))
    sx, sw = (np.float32(448 / np.abs(a).max()) for a in (x, w.numpy()))
    expected = ug.conv2d(ug.asarray(grid(x * sx, E4M3)), ug.asarray(grid(w.numpy() * sw, E4M3))).numpy() / sx / sw
    np.testing.assert_allclose(y.numpy(), expected + b.reshape(4, 1, 1), rtol=1e-4, atol=1e-4)


def test_scaled_formats_need_a_sign() -> None:
    with pytest.raises(FormatError, match="sign"):
        Scaled("float8_e8m0fnu")
    with pytest.raises(FormatError, match="sign"):
        Scaled("mxfp8_e4m3")


# Dynamic fixed point


def radix(**settings: Any) -> Any:
    return DynamicFixed(**settings).quantizer("activation", "nearest_even", "saturate", ug.Generator())


@pytest.mark.parametrize(("top", "integer_bits"), [(0.75, 0), (1.0, 1), (3.0, 2), (0.1, -3), (100.0, 7)])
def test_the_start_holds_the_first_tensor(top: float, integer_bits: int) -> None:
    r = radix(bits=10)
    out = r.round(np.float32([top, -top / 3, 0])).values
    assert r.form is as_format(f"q{integer_bits}.{9 - integer_bits}")
    np.testing.assert_array_equal(out, grid(np.float32([top, -top / 3, 0]), r.form))


def test_the_radix_moves_by_the_rate_of_overflow() -> None:
    r = radix(bits=8, max_overflow_rate=0.01, interval=2)
    r.round(np.full(100, 0.9, np.float32))  # starts at 0 integer bits; half the range overflows: stays
    r.round(np.full(100, 0.9, np.float32))
    assert r.integer_bits == 0
    some = np.full(100, 0.9, np.float32)
    some[:2] = 1.5  # one value in 100 would be allowed
    r.round(some)
    r.round(some)
    assert r.integer_bits == 1
    some[:3] = 1.5
    r.round(some)
    some[:] = 0.1
    r.round(some)
    assert r.integer_bits == 1  # three values in 200 would overflow half the range
    r.round(some)
    r.round(some)
    assert r.integer_bits == 0


def test_zeros_wait_for_values_and_updates_have_bits_of_their_own() -> None:
    r = radix(bits=8)
    np.testing.assert_array_equal(r.round(np.zeros(3, np.float32)).values, 0)
    assert r.integer_bits is None
    r.round(np.ones(3, np.float32))
    assert r.form is as_format("q1.6")
    p = nn.Parameter(ug.asarray(values(30)))
    policy, optimizer = Policy(update=DynamicFixed(bits=4, update_bits=9)), ug.optim.SGD([p], lr=0.0)
    p.grad = ug.zeros(30)
    with policy.inspect() as seen:
        policy.step(optimizer)
    assert as_format(seen[0].format).bits == 9


def test_backward_of_dynamic_fixed_point() -> None:
    x, w, g = values(4, 8), values(5, 8), values(4, 5) * np.float32(0.01)
    policy = Policy(**dict.fromkeys(("weight", "activation", "gradient"), DynamicFixed(bits=7)))
    with policy.inspect() as seen:
        y, dx, dw = once(policy, x, nn.Parameter(ug.asarray(w)), g)
    forms = {(r.role, r.shape): r.format for r in seen}
    qx, qw = grid(x, forms["activation", (4, 8)]), grid(w, forms["weight", (5, 8)])
    qg = grid(g, forms["gradient", (4, 5)])
    assert len({*forms.values()}) > 2  # the gradients' radix point is elsewhere
    np.testing.assert_allclose(y, grid(qx @ qw.T, forms["activation", (4, 5)]), atol=1e-6)
    np.testing.assert_allclose(dx, qg @ qw, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(dw, grid(qg.T @ qx, forms["weight gradient", (5, 8)]), atol=1e-6)


# DoReFa


def test_weights_of_one_bit_are_signs_times_their_mean() -> None:
    w, x, g = values(5, 8), values(4, 8), values(4, 5)
    w[0, 0] = 0.0
    leaf = nn.Parameter(ug.asarray(w))
    y, dx, dw = once(Policy(weight=dorefa.weight(1)), x, leaf, g)
    signs = np.where(w < 0, -1, 1) * np.abs(w).mean(dtype=np.float64).astype(np.float32)
    np.testing.assert_allclose(y, x @ signs.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, g @ signs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dw, g.T @ x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [2, 4])
def test_weights_of_k_bits(k: int) -> None:
    w, x, g = values(5, 8), values(4, 8), values(4, 5)
    y, _, dw = once(Policy(weight=dorefa.weight(k)), x, nn.Parameter(ug.asarray(w)), g)
    top, steps = np.abs(np.tanh(w)).max(), 2**k - 1
    quantised = 2 * np.rint((np.tanh(w) / (2 * top) + 0.5) * steps) / steps - 1
    assert len(np.unique(quantised)) <= 2**k
    np.testing.assert_allclose(y, x @ quantised.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dw, (g.T @ x) * (1 - np.tanh(w) ** 2) / top, rtol=1e-4, atol=1e-5)


def test_activations_are_clipped_to_one_and_rounded() -> None:
    w, x, g = values(5, 8), values(4, 8), values(4, 5)
    leaf = nn.Parameter(ug.asarray(w))
    y, dx, dw = once(Policy(activation=dorefa.activation(2)), x, leaf, g)
    rounded = np.rint(np.clip(x, 0, 1) * 3) / np.float32(3)
    np.testing.assert_allclose(y, rounded @ w.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dx, (g @ w) * ((x >= 0) & (x <= 1)), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dw, g.T @ rounded, rtol=1e-5, atol=1e-5)


def test_gradients_are_right_in_the_mean_and_repeat() -> None:
    g = values(2, 6)
    g[1] = 0
    drawn = dorefa.gradient(3, seed=4)
    first = drawn(ug.asarray(g)).numpy()
    many = drawn(ug.asarray(np.tile(g, (4000, 1)))).numpy().reshape(4000, 2, 6)
    top = 2 * np.abs(g).max(axis=1, keepdims=True)
    inside = np.abs(g) < 0.9 * top / 2  # at the ends the noise is clipped
    deviation = top / 7 / math.sqrt(4000)
    assert (np.abs(many.mean(axis=0) - g) < 5 * deviation + 1e-7)[inside].all()
    np.testing.assert_array_equal(dorefa.gradient(3, seed=4)(ug.asarray(g)).numpy(), first)
    levels = (many[:, 0] / top[0] + 0.5) * 7
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)


def test_a_gradient_quantiser_serves_a_policy() -> None:
    w, x, g = values(5, 8), values(4, 8), values(4, 5)
    policy = Policy(gradient=dorefa.gradient(4, seed=1))
    _, dx, dw = once(policy, x, nn.Parameter(ug.asarray(w)), g)
    rounded = dorefa.gradient(4, seed=1)(ug.asarray(g)).numpy()
    np.testing.assert_allclose(dx, rounded @ w, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(dw, rounded.T @ x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [dorefa.weight, dorefa.activation, dorefa.gradient])
def test_dorefa_bits_are_checked(make: Any) -> None:
    for bits in (0, 25, 1.5, True):
        with pytest.raises(ArgumentError, match="bits="):
            make(bits)
