"""Backward under a policy against an explicit recomputation in NumPy: the stated estimator, in every format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import GradientError
from ulpgrad.formats import Block, Format, Random, as_format
from ulpgrad.kernels.integer.accumulator import Accumulator
from ulpgrad.kernels.integer.spec import reference
from ulpgrad.policy import Policy, accumulating
from ulpgrad.policy.accumulating import fold, unfold

RNG = np.random.default_rng(5)
Array = np.ndarray[Any, Any]
FORMATS = ["q3.8", "float8_e4m3fn", "bfloat16", "e6m9"]


def values(*shape: int, scale: float = 1.0) -> Array:
    return (RNG.standard_normal(shape) * scale).astype(np.float32)


def grid(x: Array, form: Any, axis: int = -1, rounding: str = "nearest_even", random: Random | None = None) -> Array:
    """The definition: codes of the format, saturating, and back."""
    form = as_format(form)
    if isinstance(form, Block):
        return form.decode(form.encode(x, axis=axis)).astype(x.dtype)
    return form.decode(form.encode(x, rounding, "saturate", True, random)).astype(x.dtype)


def layer(n: int = 6, k: int = 40, o: int = 35) -> tuple[Array, Array, Array, Array]:
    """Input, weight, bias and a gradient to come back."""
    return values(n, k), values(o, k, scale=0.3), values(o, scale=0.3), values(n, o)


def gradients(policy: Any, run: Callable[..., ug.Tensor], seed: Array, *arrays: Array) -> tuple[Array, list[Array]]:
    leaves = [ug.asarray(a, requires_grad=True) for a in arrays]
    with policy:
        y = run(*leaves)
    found = ug.grad(y, leaves, ug.asarray(seed))
    return y.detach().numpy(), [g.numpy() for g in found]


def close(found: Array, expected: Array) -> None:
    """Equal but for the order of float32 sums."""
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-6 * max(1.0, float(np.abs(expected).max())))


# Backward is the stated estimator's


@pytest.mark.parametrize("form", FORMATS)
def test_linear_rounds_operands_result_and_gradients(form: str) -> None:
    x, w, b, g = layer()
    y, (dx, dw, db) = gradients(Policy(weight=form, activation=form, gradient=form), ug.linear, g, x, w, b)
    qx, qw, qb, qg = (grid(a, form) for a in (x, w, b, g))
    step = np.abs(as_format(form).spacing(y)).max()  # a float32 sum may lie on the other side of a tie
    np.testing.assert_allclose(y, grid(qx @ qw.T + qb, form), atol=step)
    np.testing.assert_array_equal(y, grid(y, form))
    close(dx, qg @ qw)
    close(dw, grid(dw, form))
    np.testing.assert_allclose(dw, grid(qg.T @ qx, form), atol=np.abs(as_format(form).spacing(dw)).max())
    np.testing.assert_allclose(db, grid(qg.sum(axis=0), form), atol=np.abs(as_format(form).spacing(db)).max())


@pytest.mark.parametrize("form", ["mxfp8_e4m3", "mxfp4_e2m1", "mxint8_rceil"])
def test_blocks_lie_along_the_axis_that_is_summed(form: str) -> None:
    x, w, b, g = layer(n=37)
    y, (dx, dw, db) = gradients(Policy(weight=form, activation=form, gradient=form), ug.linear, g, x, w, b)
    close(y, grid(x, form) @ grid(w, form).T + b)
    close(dx, grid(g, form) @ grid(w, form, axis=0))
    close(dw, grid(g, form, axis=0).T @ grid(x, form, axis=0))
    close(db, g.sum(axis=0))


@pytest.mark.parametrize("form", ["float8_e5m2", "mxfp8_e4m3"])
def test_matmul_of_batches(form: str) -> None:
    a, b, g = values(3, 5, 33), values(33, 7), values(3, 5, 7)
    y, (da, db) = gradients(ug.autocast(form), ug.matmul, g, a, b)
    block = form.startswith("mx")
    close(y, grid(a, form) @ grid(b, form, axis=-2))
    close(da, grid(g, form) @ np.swapaxes(grid(b, form, axis=-1), -1, -2))
    rows = [grid(t, form, axis=-2 if block else -1) for t in (a, g)]
    close(db, (np.swapaxes(rows[0], -1, -2) @ rows[1]).sum(axis=0))


def convolved(x: Array, w: Array, g: Array) -> tuple[Array, Array, Array]:
    """A 3x3 convolution with padding 1 and stride 2, and its gradients, by patches."""
    how: dict[str, Any] = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    columns, (oh, ow) = unfold(x, (3, 3), **how)
    flat, rows = g.reshape(*g.shape[:2], -1), w.reshape(len(w), -1)
    y = (rows @ columns[:, 0]).reshape(*g.shape[:2], oh, ow)
    dw = np.einsum("nop,nkp->ok", flat, columns[:, 0]).reshape(w.shape)
    return y, fold((rows.T @ flat)[:, None], x.shape, (3, 3), (oh, ow), **how), dw


@pytest.mark.parametrize("form", ["q3.8", "float8_e4m3fn", "mxfp8_e4m3"])
def test_conv2d(form: str) -> None:
    x, w, g = values(2, 3, 8, 8), values(4, 3, 3, 3, scale=0.3), values(2, 4, 4, 4)
    policy = Policy(weight=form, activation=form, gradient=form, everywhere=False)
    y, (dx, dw) = gradients(policy, lambda a, b: ug.conv2d(a, b, stride=2, padding=1), g, x, w)
    forward, back, filters = (
        [grid(t, form, axis=i) for t, i in zip((x, w, g), axes, strict=True)]
        for axes in ((1, 1, 1), (1, 0, 1), (0, 0, 0))
    )
    close(y, convolved(*forward)[0])
    close(dx, convolved(*back)[1])
    close(dw, convolved(*filters)[2])


@pytest.mark.parametrize("form", ["float8_e4m3fn", "mxfp8_e4m3"])
def test_attention_rounds_queries_keys_and_values(form: str) -> None:
    q, k, v, g = (values(2, 2, 33, 8) for _ in range(4))
    y, found = gradients(ug.autocast(form), ug.scaled_dot_product_attention, g, q, k, v)
    rounded = [grid(q, form), grid(k, form), grid(v, form, axis=-2)]
    with_plain = gradients(ug.enable_grad(), ug.scaled_dot_product_attention, grid(g, form), *rounded)
    close(y, with_plain[0])
    for a, b in zip(found, with_plain[1], strict=True):
        close(a, b)


def test_results_of_ops_are_activations_and_their_gradients_are_rounded() -> None:
    x, g = values(4, 5), values(4, 5)
    form = as_format("q2.5")
    for function in (ug.tanh, ug.gelu, lambda t: t * 3.0, ug.exp, ug.softmax):
        leaf = ug.asarray(x, requires_grad=True)
        with Policy(activation=form, gradient="float8_e5m2"):
            y = function(leaf)
        plain = ug.asarray(x, requires_grad=True)
        expected = function(plain)
        np.testing.assert_array_equal(y.detach().numpy(), grid(expected.detach().numpy(), form))
        rounded = ug.asarray(grid(g, "float8_e5m2"))
        np.testing.assert_array_equal(
            ug.grad(y, leaf, ug.asarray(g)).numpy(), ug.grad(expected, plain, rounded).numpy()
        )


def test_losses_sums_and_numbers_are_left_alone() -> None:
    x = ug.asarray(values(6, 5))
    target = ug.zeros(6, dtype=int)
    with Policy(activation="q1.1", gradient="q1.1"):
        for function in (lambda t: ug.cross_entropy(t, target), ug.sum, lambda t: ug.mse_loss(t, t * 0.0, "none"),
                         lambda t: ug.mean(t, axis=0), ug.log_softmax):  # fmt: skip
            inside = function(x)
            with Policy(enabled=False):
                outside = function(x)
            np.testing.assert_array_equal(inside.numpy(), outside.numpy())


def test_batch_norm_is_one_op() -> None:
    x = ug.asarray(values(6, 3))
    with Policy(activation="q3.6"):
        y = ug.batch_norm(x, ug.zeros(3), ug.full(3, 1e-4))
    np.testing.assert_array_equal(y.numpy(), grid(ug.batch_norm(x, ug.zeros(3), ug.full(3, 1e-4)).numpy(), "q3.6"))


@pytest.mark.parametrize("accumulate", ["e6m9", ug.Accumulate("e6m9", chunk=4), ug.Accumulate("bfloat16", chunk=2)])
def test_chosen_accumulators_of_floats(accumulate: Any) -> None:
    x, w, b, g = layer()
    policy = Policy(weight="float8_e5m2", activation="float8_e5m2", gradient="float8_e5m2", bias=None, accumulate=accumulate,
                    everywhere=False)  # fmt: skip
    y, (dx, dw, db) = gradients(policy, ug.linear, g, x, w, b)
    qx, qw, qg = (ug.asarray(grid(a, "float8_e5m2")) for a in (x, w, g))
    np.testing.assert_array_equal(y, ug.matmul(qx, qw.T, accumulate=accumulate).numpy() + b)
    np.testing.assert_array_equal(dx, ug.matmul(qg, qw, accumulate=accumulate).numpy())
    np.testing.assert_array_equal(dw, ug.matmul(qg.T, qx, accumulate=accumulate).numpy())
    close(db, g.sum(axis=0))


def codes(x: Array, form: str) -> Array:
    return as_format(form).encode(x)


@pytest.mark.parametrize(
    "accumulate",
    ["int64", "int32", Accumulator(20, shift=4), Accumulator(18, shift=6, rounding="down", overflow="wrap", chunk=5)],
)
def test_integer_accumulators_take_codes_and_are_exact(accumulate: Any) -> None:
    x, w, b, g = layer()
    g *= np.float32(0.1)
    forms = {"activation": "q3.8", "weight": "q2.9", "gradient": "q0.11"}
    policy = Policy(**forms, accumulate=accumulate)
    y, (dx, dw, db) = gradients(policy, ug.linear, g, x, w, b)
    cx, cw, cg = codes(x, "q3.8"), codes(w, "q2.9"), codes(g, "q0.11")
    shift = accumulate.shift if isinstance(accumulate, Accumulator) else 0

    def product(left: Array, right: Array, fraction: int) -> Array:
        return reference(left, right, accumulate).astype(np.float64) * 2.0 ** (shift - fraction)

    np.testing.assert_array_equal(y, grid(product(cx, cw.T, 17) + grid(b, "q2.9"), "q3.8"))
    np.testing.assert_array_equal(dx, product(cg, cw, 20).astype(np.float32))
    np.testing.assert_array_equal(dw, grid(product(cg.T, cx, 19), "q0.11"))
    np.testing.assert_array_equal(db, grid(grid(g, "q0.11").sum(axis=0), "q0.11"))


def test_convolutions_of_codes_are_exact() -> None:
    x, w, g = values(2, 3, 8, 8), values(4, 3, 3, 3), values(2, 4, 4, 4)
    policy = Policy(weight="q2.9", activation="q2.9", gradient="q2.9", accumulate="int64", everywhere=False)
    y, (dx, dw) = gradients(policy, lambda a, b: ug.conv2d(a, b, stride=2, padding=1), g, x, w)
    expected = convolved(*(codes(a, "q2.9").astype(np.int64) for a in (x, w, g)))
    for found, exact in zip((y, dx, dw), expected, strict=True):
        np.testing.assert_array_equal(found, (exact * 2.0**-18).astype(np.float32))


@pytest.mark.parametrize("accumulate", ["int32", "int64", Accumulator(20, 4), Accumulator(16, 3, "wrap", "down", 5)])
def test_convolutions_of_codes_add_in_the_order_of_patches(accumulate: Any) -> None:
    """By kernels of their own, with the bits that products of patches have."""
    x, w, g = values(2, 4, 7, 6), values(6, 2, 3, 2), values(2, 6, 3, 5)
    policy = Policy(weight="q2.9", activation="q2.9", gradient="q2.9", accumulate=accumulate, everywhere=False)

    def run() -> list[Array]:
        y, found = gradients(
            policy, lambda a, b: ug.conv2d(a, b, stride=(3, 1), padding=1, dilation=(1, 3), groups=2), g, x, w
        )
        return [y, *found]

    own = run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accumulating, "CONVOLUTIONS", {})
        for a, b in zip(own, run(), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_gradient_in_no_fixed_point_stays_in_float32() -> None:
    x, w, b, g = layer()
    _, (dx, _, _) = gradients(Policy(weight="q2.9", activation="q2.9", accumulate="int64"), ug.linear, g, x, w, b)
    close(dx, g @ grid(w, "q2.9"))


@pytest.mark.parametrize("how", [{"stride": 2, "padding": 1}, {"groups": 3, "dilation": 2}])
def test_convolutions_with_an_accumulator_are_products_of_patches(how: dict[str, int]) -> None:
    """With an accumulator that holds every sum, they are what the kernels give."""
    x, w = values(2, 3, 9, 8), values(6, 3 // how.get("groups", 1), 3, 3)
    shape = ug.conv2d(ug.asarray(x), ug.asarray(w), **how).shape
    g = values(*shape)

    def run(accumulate: Any) -> list[Array]:
        policy = Policy(weight="q2.4", activation="q2.4", gradient="q2.4", accumulate=accumulate, everywhere=False)
        y, found = gradients(policy, lambda a, b: ug.conv2d(a, b, **how), g, x, w)
        return [y, *found]

    for a, b in zip(run("float64"), run(None), strict=True):
        close(a, b)


def test_a_weight_may_be_used_under_two_settings() -> None:
    w, x = ug.asarray(values(4, 4), requires_grad=True), ug.asarray(values(2, 4))
    with Policy(weight="q2.2", activation="q2.12", everywhere=False, overrides={"matmul": {"weight": "q2.6"}}):
        found = ug.linear(x, w), ug.matmul(x, w)
    rounded = grid(x.numpy(), "q2.12")
    close(found[0].detach().numpy(), rounded @ grid(w.detach().numpy(), "q2.2").T)
    close(found[1].detach().numpy(), rounded @ grid(w.detach().numpy(), "q2.6"))


def test_attention_takes_functions() -> None:
    q = ug.asarray(values(3, 4))
    with Policy(activation=ug.round):
        y = ug.scaled_dot_product_attention(q, q, q)
    whole = ug.round(q)
    np.testing.assert_array_equal(y.numpy(), ug.scaled_dot_product_attention(whole, whole, whole).numpy())


# Estimators


def test_clipped_estimator_stops_where_it_saturated() -> None:
    x, w, _, g = layer()
    form = as_format("q0.4")
    _, (dx, dw) = gradients(
        Policy(weight=form, activation=form, estimator="clipped", everywhere=False), ug.linear, g, x * 1.5, w * 4
    )
    close(dx, np.where((x * 1.5 <= form.max) & (x * 1.5 >= form.min), g @ grid(w * 4, form), 0))
    close(dw, np.where((w * 4 <= form.max) & (w * 4 >= form.min), g.T @ grid(x * 1.5, form), 0))


def test_an_estimator_of_ones_own_by_role() -> None:
    x, w, _, g = layer()
    seen: list[Format] = []

    def halved(gradient: ug.Tensor, value: ug.Tensor, form: Format) -> ug.Tensor:
        seen.append(form)
        np.testing.assert_array_equal(value.numpy(), w)
        return gradient * 0.5

    policy = Policy(weight="q2.5", activation="q2.5", estimator={"weight": halved}, everywhere=False)
    _, (dx, dw) = gradients(policy, ug.linear, g, x, w)
    close(dx, g @ grid(w, "q2.5"))
    close(dw, 0.5 * g.T @ grid(x, "q2.5"))
    assert seen == [as_format("q2.5")]


def test_second_derivatives_are_refused() -> None:
    x = ug.asarray(values(2, 3), requires_grad=True)
    with Policy(weight="q2.5", activation="q2.5"):
        y = (ug.tanh(x) @ ug.ones((3, 2))).sum()
    with pytest.raises(GradientError, match="create_graph"):
        ug.grad(y, x, create_graph=True)


# Randomness


def stochastic(seed: int) -> tuple[Array, ...]:
    x, w, b, g = (
        np.random.default_rng(0).standard_normal(s).astype(np.float32) for s in ((6, 9), (5, 9), (5,), (6, 5))
    )
    policy = Policy(weight="q2.3", activation="q2.3", gradient="q2.3", rounding="stochastic", seed=seed)
    y, found = gradients(policy, lambda a, c, d: ug.tanh(ug.linear(a, c, d)), g, x, w, b)
    return (y, *found)


def test_a_seed_gives_the_same_bits_again() -> None:
    for a, b in zip(stochastic(3), stochastic(3), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(stochastic(3), stochastic(4), strict=True))


def test_stochastic_words_are_the_generators() -> None:
    x = values(7, 9)
    with Policy(activation="q2.3", rounding="stochastic", seed=11):
        y = ug.asarray(x) * 1.0
    words = ug.Generator(11).words(x.size).reshape(x.shape)
    np.testing.assert_array_equal(y.numpy(), grid(x, "q2.3", rounding="stochastic", random=Random(words)))


def test_backward_inside_and_outside_the_block_agree() -> None:
    x, w, b, g = layer()
    policy = Policy(weight="q2.5", activation="q2.5", gradient="q2.5")
    _, outside = gradients(policy, ug.linear, g, x, w, b)
    leaves = [ug.asarray(a, requires_grad=True) for a in (x, w, b)]
    with policy:
        inside = ug.grad(ug.linear(*leaves), leaves, ug.asarray(g))
    for a, c in zip(outside, inside, strict=True):
        np.testing.assert_array_equal(a, c.numpy())


def test_kernels_get_values_on_the_grid() -> None:
    from ulpgrad import dispatch

    x, w, b, g = layer()
    policy = Policy(weight="q2.5", activation="q2.5", gradient="q2.5")
    calls = dispatch.calls_of(lambda: gradients(policy, ug.linear, g, x, w, b))
    given = [arrays[:2] for op, _, arrays, _ in calls if op.name in ("linear", "matmul")]
    assert len(given) == 3
    for arrays in given:
        for a in arrays:
            np.testing.assert_array_equal(a, grid(a, "q2.5"))
