"""Dropout inside attention: the words of dropout of the whole matrix of weights, whoever computes it and however it is cut."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import as_format
from ulpgrad.kernels import native, registry
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.attention.visible import local
from ulpgrad.kernels.random import philox
from ulpgrad.testing import gradcheck

RNG = np.random.default_rng(11)
STREAM = spec.Dropout(0.4, 0x299F31D0A4093822, 2**64 - 50)  # the counter carries
RUNGS = [r.name for r in registry.ladder(spec.attention, "cpu") if r.unavailable() is None]
DROPPING = [
    name for name in RUNGS if name.rpartition("/")[2] in ("reference", "numpy-unfused", "numba-blocks", "native-fused")
]
PLAIN: dict[str, Any] = {"is_causal": False, "scale": 0.25}


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def identity(heads: int, keys: int) -> Any:
    """Values that make the result the matrix of weights."""
    return np.broadcast_to(np.eye(keys, dtype=np.float32), (1, heads, keys, keys))


def run(op: Any, rung: str, arrays: Any, params: dict[str, Any]) -> Any:
    formats = tuple(None if a is None else as_format(a.dtype) for a in arrays)
    with dispatch.use(**{op.name: rung}):
        return dispatch.make_plan(op, "cpu", formats, arrays, params).run(*arrays, **params)


@pytest.mark.parametrize("rung", DROPPING)
@pytest.mark.parametrize(("length", "keys"), [(2, 7), (1, 200), (70, 64), (66, 197), (5, 130)])
def test_weight_i_is_kept_by_word_i(rung: str, length: int, keys: int) -> None:
    """Bit for bit, where rows begin within a block of words and where they cross the kernel's own blocks."""
    q, k = normal(1, 2, length, 8), normal(1, 2, keys, 8)
    y = run(spec.attention, rung, (q, k, identity(2, keys), None), {**PLAIN, "dropout": STREAM})[0]
    np.testing.assert_array_equal(y != 0, philox.kept((1, 2, length, keys), *STREAM))


@pytest.mark.parametrize("rung", DROPPING)
def test_gradient_of_values_has_the_same_weights(rung: str) -> None:
    """With g the identity dv is the matrix of weights, turned: dropped where those of the result were."""
    q, k, v = normal(1, 2, 90, 8), normal(1, 2, 131, 8), normal(1, 2, 131, 90)
    params = {**PLAIN, "dropout": STREAM}
    y, lse = run(spec.attention, rung, (q, k, v, None), params)
    dv = run(spec.attention_gradient, rung, (identity(2, 90), q, k, v, None, y, lse), params)[2]
    np.testing.assert_array_equal(dv.swapaxes(-1, -2) != 0, philox.kept((1, 2, 90, 131), *STREAM))


@pytest.mark.skipif(native.missing() is not None, reason="the C++ kernels are not built")
@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_instruction_sets_keep_the_same(isa: str, dtype: Any) -> None:
    if isa not in native.module().cpu_isas():
        pytest.skip(f"this CPU has no {isa}")
    for length, keys in ((67, 201), (2, 77)):
        arrays = [a.astype(dtype) for a in (normal(1, 2, length, 8), normal(1, 2, keys, 8), identity(2, keys))]
        p, key, counter = STREAM
        stream = (key, counter & philox.LOW64, counter >> 64, philox.threshold(p), 1 - p)
        y, lse = native.module().attention(*arrays, None, **PLAIN, dropout=stream, isa=isa)
        np.testing.assert_array_equal(y != 0, philox.kept((1, 2, length, keys), *STREAM))
        g = np.broadcast_to(np.eye(length, dtype=dtype), (1, 2, length, length))
        v = normal(1, 2, keys, length).astype(dtype)
        y, lse = native.module().attention(*arrays[:2], v, None, **PLAIN, dropout=stream, isa=isa)
        dv = native.module().attention_gradient(g, *arrays[:2], v, None, y, lse, **PLAIN, dropout=stream, isa=isa)[2]
        np.testing.assert_array_equal(dv.swapaxes(-1, -2) != 0, philox.kept((1, 2, length, keys), *STREAM))


def operands(form: str, *lengths: int) -> list[ug.Tensor]:
    return [ug.asarray(normal(2, 3, n, 16)).to(form).requires_grad_() for n in lengths]


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window_size": (9, 3)}], ids=str)
def test_what_dropout_of_the_weights_gives(form: str, options: dict[str, Any]) -> None:
    """Result, gradients and what is left of the stream, as with the weights written out."""
    q, k, v = operands(form, 45, 51, 51)
    mask = np.tri(45, 51, dtype=bool) if options.get("is_causal") else np.ones((45, 51), bool)
    if "window_size" in options:
        mask = local(45, 51, options["window_size"])
    results = []
    for written_out in (False, True):
        generator = ug.Generator(5, position=3)
        if written_out:
            scores = ug.matmul(q.to("float32"), ug.matrix_transpose(k.to("float32"))) * 0.25
            weights = ug.softmax(ug.where(ug.asarray(mask), scores, -np.inf), axis=-1)
            y = ug.matmul(ug.dropout(weights, 0.3, generator=generator), v.to("float32")).to(form)
        else:
            y = ug.scaled_dot_product_attention(q, k, v, **options, dropout_p=0.3, generator=generator)
        y.backward(ug.ones_like(y) + y.detach())
        results.append([y.detach(), q.grad, k.grad, v.grad, generator.position])
        q.grad = k.grad = v.grad = None
    (*fused, position), (*unfused, position_too) = results
    assert position == position_too
    for found, expected in zip(fused, unfused, strict=True):
        wanted = expected.to("float32").numpy()
        close = (2e-5 if form == "float32" else 3e-2) * np.abs(wanted).max()
        np.testing.assert_allclose(found.to("float32").numpy(), wanted, rtol=0, atol=close)


def test_every_call_draws_anew_and_only_in_training() -> None:
    q, k, v = (t.detach() for t in operands("float32", 9, 9, 9))
    generator = ug.Generator(1)
    calls = [ug.scaled_dot_product_attention(q, k, v, dropout_p=0.5, generator=generator).numpy() for _ in range(5)]
    assert len({a.tobytes() for a in calls}) == 5
    assert generator.position == 5 * -(-2 * 3 * 9 * 9 // 4)
    plain = ug.scaled_dot_product_attention(q, k, v).numpy()
    for options in ({"dropout_p": 0.0}, {"dropout_p": 0.5, "training": False}):
        y = ug.scaled_dot_product_attention(q, k, v, **options, generator=generator)
        np.testing.assert_array_equal(y.numpy(), plain)
    assert generator.position == 5 * -(-2 * 3 * 9 * 9 // 4)
    again = ug.scaled_dot_product_attention(q, k, v, dropout_p=0.5, generator=ug.Generator(1))
    np.testing.assert_array_equal(again.numpy(), calls[0])


@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"window_size": (1, 1)}], ids=str)
def test_gradients_of_any_order(options: dict[str, Any]) -> None:
    q, k, v = (ug.asarray(RNG.standard_normal((n, 3)), requires_grad=True) for n in (3, 5, 5))

    def attend(q: Any, k: Any, v: Any, mask: Any = None) -> ug.Tensor:
        return ug.scaled_dot_product_attention(q, k, v, mask, **options, dropout_p=0.4, generator=ug.Generator(2))

    gradcheck(attend, [q, k, v], order=2)
    gradcheck(attend, [q, k, v, ug.asarray(RNG.standard_normal((3, 5)), requires_grad=True)], order=1)


def test_heads_that_share_keys() -> None:
    q, k, v = (ug.asarray(normal(2, h, 40, 16)) for h in (6, 2, 2))
    repeated = [ug.asarray(np.repeat(a.numpy(), 3, axis=1)) for a in (k, v)]
    found = ug.scaled_dot_product_attention(q, k, v, enable_gqa=True, dropout_p=0.2, generator=ug.Generator(8))
    expected = ug.scaled_dot_product_attention(q, *repeated, dropout_p=0.2, generator=ug.Generator(8))
    np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_under_policies() -> None:
    """The same weights are dropped, whether the policy's operands enter one kernel or its products one by one."""
    q, k, v = (t.detach() for t in operands("float32", 20, 21, 21))

    def attend() -> Any:
        return ug.scaled_dot_product_attention(q, k, v, dropout_p=0.5, generator=ug.Generator(4)).to("float32").numpy()

    plain = attend()
    with ug.autocast("bfloat16"):
        rounded = attend()
    with ug.policy.Policy(activation=ug.bfloat16, accumulate=ug.float32):
        by_products = attend()
    for found in (rounded, by_products):
        assert 0 < np.abs(found - plain).max() < 0.05


def test_no_matrix_of_words_or_weights_is_held() -> None:
    """16 MB of weights for each head, if they were, and as much of words."""
    if native.missing() is not None:
        pytest.skip("the rungs without a compiler hold blocks in memory that is counted otherwise")
    q = ug.asarray(normal(2, 2048, 16), requires_grad=True)
    tracemalloc.start()
    ug.scaled_dot_product_attention(q, q, q, dropout_p=0.1).sum().backward()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**21


@pytest.mark.parametrize("p", [1.0, 1, -0.1, 2.0, float("nan")])
def test_probabilities_that_are_none(p: float) -> None:
    q = ug.ones((3, 4))
    with pytest.raises(ArgumentError, match=r"dropout_p=.*: expected a probability of at least 0 and below 1"):
        ug.scaled_dot_product_attention(q, q, q, dropout_p=p)
    with pytest.raises(ArgumentError, match="attention: dropout of p="):
        spec.attention.check(*[q.numpy()] * 3, None, **PLAIN, dropout=spec.Dropout(p, 0, 0))


def test_streams_that_are_none() -> None:
    q = ug.ones((3, 4))
    with pytest.raises(ArgumentError, match=r"generator=3: expected an ulpgrad\.random\.Generator"):
        ug.scaled_dot_product_attention(q, q, q, dropout_p=0.1, generator=3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match=r"attention: counter=-1"):
        spec.attention.check(*[q.numpy()] * 3, None, **PLAIN, dropout=spec.Dropout(0.1, 0, -1))


def test_explain_says_who_knows_no_dropout() -> None:
    q = ug.ones((2, 5, 8))
    text = str(ug.explain("attention", q, q, q, **PLAIN, dropout=STREAM))
    assert "knows no dropout" in text
    assert text.count("->") == 1
