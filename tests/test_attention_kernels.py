"""Attention where the registry's samples do not reach: shifts that must move, tiny bfloat16, grouped heads, errors, memory.

Errors against float64 that were measured on (1, 8, 512, 64) of normal values, in relative norm, beside torch 2.13: float32 y
3.14e-7 (3.84e-7), dq 4.16e-7 (4.74e-7), dk 3.91e-7 (4.35e-7), dv 3.68e-7 (4.06e-7); bfloat16 y 2.21e-3 (2.24e-3), dq 2.40e-3
(2.40e-3), dk 2.35e-3 (3.90e-3), dv 2.33e-3 (3.84e-3).
"""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, ShapeError
from ulpgrad.formats import bfloat16, float32
from ulpgrad.kernels import capabilities, native
from ulpgrad.kernels.attention import spec
from ulpgrad.kernels.cast import convert
from ulpgrad.testing import gradcheck

pytestmark = pytest.mark.skipif(native.missing() is not None, reason="the C++ kernels are not built")
RNG = np.random.default_rng(5)


def normal(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(np.float32)


def run(q: Any, k: Any, v: Any, mask: Any = None, is_causal: bool = False, scale: float = 0.25, **more: Any) -> Any:
    return native.module().attention(q, k, v, mask, is_causal=is_causal, scale=scale, **more)


def error(got: Any, *args: Any, is_causal: bool = False, scale: float = 0.25) -> float:
    q, k, v = (a.astype(np.float64) for a in args)
    with np.errstate(all="ignore"):
        wanted = spec.attention.reference(q, k, v, None, is_causal=is_causal, scale=scale)[0]
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("grow", [3.0, 40.0, -40.0])
def test_scores_that_grow_from_block_to_block(isa: str, grow: float) -> None:
    """The first keys give the shift; here it is too low, or far too high, for those that follow."""
    if isa not in native.module().cpu_isas():
        pytest.skip(f"this CPU has no {isa}")
    q, k, v = np.abs(normal(2, 70, 16)), np.abs(normal(2, 900, 16)), normal(2, 900, 16)
    k *= np.linspace(0, grow, 900, dtype=np.float32)[:, None]
    for is_causal in (False, True):
        assert error(run(q, k, v, is_causal=is_causal, isa=isa)[0], q, k, v, is_causal=is_causal) < 2e-5


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_scores_far_from_zero_on_both_sides(isa: str) -> None:
    """Weights are first made without a shift: here they are all too small or too large, from query to query."""
    if isa not in native.module().cpu_isas():
        pytest.skip(f"this CPU has no {isa}")
    q, k, v = 1 + normal(2, 70, 16) / 8, 50 + normal(2, 300, 16), normal(2, 300, 16)
    q[:, ::2] *= -1  # scores near -200, and near 200
    wanted = spec.attention.reference(*(a.astype(np.float64) for a in (q, k, v)), None, is_causal=False, scale=0.25)
    y, lse = run(q, k, v, isa=isa)
    assert np.allclose(y, wanted[0], atol=1e-4)
    assert np.allclose(lse, wanted[1], rtol=1e-6)


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("size", [1e4, 1e8, 1e13, 1e18])
def test_scores_that_no_exponent_holds(isa: str, size: float) -> None:
    """What the largest score of each query loses by its own rounding must not come back as an exponent."""
    if isa not in native.module().cpu_isas():
        pytest.skip(f"this CPU has no {isa}")
    rng = np.random.default_rng(7)
    q, k, v = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 70, 16), (2, 300, 16), (2, 300, 16)))
    q *= np.float32(size)
    for is_causal in (False, True):
        assert error(run(q, k, v, is_causal=is_causal, isa=isa)[0], q, k, v, is_causal=is_causal) < 0.05


def test_values_that_are_infinite_stay_so() -> None:
    q, k, v = normal(1, 9, 16), normal(1, 40, 16), normal(1, 40, 16)
    v[0, 3, 5], v[0, 4, 6] = np.inf, -np.inf
    y = run(q, k, v)[0]
    assert (y[..., 5] == np.inf).all()
    assert (y[..., 6] == -np.inf).all()
    assert np.isfinite(np.delete(y, [5, 6], axis=-1)).all()


def test_weights_of_bfloat16_lose_least_where_they_count_most() -> None:
    """With the largest score for a shift. With any other, the error is 2.35e-3 or more; that of the result's own digits alone
    is 1.66e-3."""
    if capabilities.missing("avx512_bf16"):
        pytest.skip(capabilities.missing("avx512_bf16") or "")
    rng = np.random.default_rng(0)
    q, k, v = (convert(rng.standard_normal((4, 512, 64)).astype(np.float32), float32, bfloat16) for _ in range(3))
    exact = [np.asarray(bfloat16.exact(x), np.float64) for x in (q, k, v)]
    y = np.asarray(bfloat16.exact(run(q, k, v, scale=0.125)[0]), np.float64)
    assert error(y, *exact, scale=0.125) < 2.3e-3


def test_infinite_and_missing_values() -> None:
    q, k, v = normal(1, 9, 16), normal(1, 400, 16), normal(1, 400, 16)
    k[0, 300] = np.nan
    assert np.isnan(run(q, k, v)[0]).all()
    assert not np.isnan(run(q, k, v, np.broadcast_to(np.arange(400) != 300, (1, 9, 400)))[0]).any()
    k[0, 300], q[0, 0] = 1.0, 1e30
    k[0, 0] = -1e30  # a score of minus infinity
    assert np.isfinite(run(q[:, 1:], k, v)[0]).all()


@pytest.mark.parametrize("size", [16, 33])
def test_bfloat16_with_and_without_dot_products(size: int) -> None:
    q, k, v = (convert(normal(2, 130, size), float32, bfloat16) for _ in range(3))
    wide = [bfloat16.exact(a) for a in (q, k, v)]
    for dots in (False, True):
        y, lse = run(q, k, v, dots=dots)
        assert error(bfloat16.exact(y), *wide) < 4e-3
        assert lse.dtype == np.float32


@pytest.mark.skipif(capabilities.missing("avx512_bf16") is not None, reason="no AVX-512 BF16")
def test_tiny_bfloat16_is_not_taken_for_zero() -> None:
    """The CPU's dot products would flush these; such calls take the widened kernels, bit for bit."""
    q, k, v = normal(1, 40, 16), normal(1, 50, 16), normal(1, 50, 16) * np.float32(2.0**-120)
    stored = [convert(a, float32, bfloat16) for a in (q, k, v)]
    y = run(*stored)[0]
    np.testing.assert_array_equal(y, run(*stored, dots=False)[0])
    assert error(bfloat16.exact(y), *map(bfloat16.exact, stored)) < 4e-3


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
def test_grouped_heads_are_repeated_heads(form: str) -> None:
    q, k, v = (ug.asarray(normal(2, h, 40, 16)).to(form) for h in (6, 2, 2))
    repeated = [ug.asarray(np.repeat(a.to("float32").numpy(), 3, axis=1)).to(form) for a in (k, v)]
    g = ug.asarray(normal(2, 6, 40, 16)).to(form)
    outs = []
    for tensors in ([q, k, v], [q, *repeated]):
        leaves = [t.detach() for t in tensors]
        for t in leaves:
            t.requires_grad = True
        y = ug.scaled_dot_product_attention(*leaves, is_causal=True, enable_gqa=tensors[1] is k)
        y.backward(g)
        outs.append([t.to("float32").numpy() for t in (y.detach(), *(t.grad for t in leaves))])
    (y, dq, dk, dv), (y2, dq2, dk2, dv2) = outs
    np.testing.assert_array_equal(y, y2)
    np.testing.assert_array_equal(dq, dq2)
    close = 1e-5 if form == "float32" else 2e-2
    for got, each in ((dk, dk2), (dv, dv2)):
        wanted = each.reshape(2, 2, 3, 40, 16).sum(axis=2)
        assert np.abs(got - wanted).max() < close * np.abs(wanted).max()


def test_grouped_heads_have_second_gradients() -> None:
    q, k, v = (ug.asarray(RNG.standard_normal((h, 3, 2)), requires_grad=True) for h in (4, 2, 2))
    gradcheck(lambda q, k, v: ug.scaled_dot_product_attention(q, k, v, enable_gqa=True), [q, k, v], order=2)


def test_heads_must_divide() -> None:
    q, k = ug.ones((1, 6, 3, 4)), ug.ones((1, 4, 3, 4))
    with pytest.raises(ShapeError, match=r"k has 4 heads and v 4: expected .* a divisor of q's 6"):
        ug.scaled_dot_product_attention(q, k, k, enable_gqa=True)
    with pytest.raises(ShapeError, match=r"enable_gqa expects \(heads, length, size\)"):
        ug.scaled_dot_product_attention(q[0, 0], k[0, 0], k[0, 0], enable_gqa=True)
    with pytest.raises(ShapeError, match="leading axes differ"):
        spec.attention.check(*(t.numpy() for t in (q, k, k)), None, is_causal=False, scale=1.0)


def test_no_matrix_of_scores_is_held() -> None:
    """16 MB of scores for each head, if they were."""
    q = ug.asarray(normal(2, 2048, 16))
    tracemalloc.start()
    ug.scaled_dot_product_attention(q, q, q)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_operands_of_other_types_are_refused() -> None:
    q = normal(1, 4, 4)
    with pytest.raises(TypeError, match="expected k of float32 values, got float64"):
        run(q, q.astype(np.float64), q)
    with pytest.raises(TypeError, match="expected q of float32, float64, float16 or"):
        run(q.astype(np.int32), q, q)
    with pytest.raises(ValueError, match="does not fit q"):
        run(q, normal(1, 4, 5), q)


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_a_window_is_a_mask_of_what_lies_near(form: str, mask: str | None) -> None:
    """Together with what else hides keys; bounds of -1 hide nothing, and rows may be left with nothing to see."""
    rng = np.random.default_rng(2)
    q, k, v = (ug.asarray(rng.standard_normal((2, n, 8)), dtype=form).requires_grad_() for n in (30, 20, 20))
    distance = np.arange(20) - np.arange(30)[:, None]
    seen = rng.random((30, 20)) < 0.7
    given = (
        None
        if mask is None
        else ug.asarray(seen if mask == "bool" else np.where(seen, 0.5, -np.inf).astype(np.float32))
    )
    for window in ((3, 2), (-1, 0), (5, -1)):
        near = (distance >= -window[0] if window[0] >= 0 else True) & (
            distance <= window[1] if window[1] >= 0 else True
        )
        if mask == "bool":
            near = near & seen
        added = np.where(near, 0.5 if mask == "float" else 0, -np.inf)
        if mask == "float":
            added = np.where(seen, added, -np.inf)
        results = []
        for options in ({"mask": given, "window_size": window}, {"mask": ug.asarray(added.astype(np.float32))}):
            y = ug.scaled_dot_product_attention(q, k, v, **options)
            (y * y).sum().backward()
            results.append([y.detach(), *(x.grad for x in (q, k, v))])
            q.grad = k.grad = v.grad = None
        for found, expected in zip(*results, strict=True):
            np.testing.assert_allclose(
                found.to("float32").numpy(), expected.to("float32").numpy(), rtol=2e-2, atol=1e-6
            )
    open_ended = ug.scaled_dot_product_attention(q, k, v, window_size=(-1, -1))
    assert np.array_equal(open_ended.detach().numpy(), ug.scaled_dot_product_attention(q, k, v).detach().numpy())


def test_a_window_has_second_gradients() -> None:
    q, k, v = (ug.asarray(RNG.standard_normal((4, 3)), requires_grad=True) for _ in range(3))
    gradcheck(lambda q, k, v: ug.scaled_dot_product_attention(q, k, v, window_size=(1, 1)), [q, k, v], order=2)


@pytest.mark.parametrize("window", [(1,), (-2, 3), (1, 2, 3), 4, ("a", 1)])
def test_windows_that_are_none(window: Any) -> None:
    with pytest.raises(ArgumentError, match="window_size"):
        ug.scaled_dot_product_attention(*[ug.ones((3, 4))] * 3, window_size=window)


def test_explain_of_an_op_with_a_file_of_its_name() -> None:
    """`ops.attention` is a file, not a function whose defaults could be asked for."""
    q = ug.ones((2, 5, 8))
    assert str(ug.explain("attention", q, q, q)).count("->") == 1
    text = str(ug.explain("attention", q, q, q, is_causal=False, scale=0.3, window=(2, 0)))
    assert "-> cpu/numpy-unfused" in text
    assert "knows no window" in text
