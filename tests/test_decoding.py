"""Lengths of attention, and the cache of keys and values: both are held against attention on just the tensors that count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, CapacityError, FormatError, GradientError, ShapeError
from ulpgrad.nn import KeyValueCache
from ulpgrad.testing import gradcheck

attend = ug.scaled_dot_product_attention
CAUSAL: list[Any] = [False, True, "lower_right"]


def normal(*shape: int, seed: int = 0, form: Any = "float32") -> ug.Tensor:
    return ug.asarray(np.random.default_rng(seed).standard_normal(shape).astype(np.float32)).to(form)


def bits(x: ug.Tensor) -> Any:
    return x.detach().storage


@pytest.mark.parametrize("causal", CAUSAL)
@pytest.mark.parametrize("form", ["float32", "float64", "bfloat16", "float16"])
def test_lengths_are_the_tensors_cut(form: str, causal: Any) -> None:
    """Bit for bit, forwards and backwards; what lies behind is NaN and nobody reads it."""
    queries, keys = [70, 5, 0, 2], [133, 40, 7, 0]
    q, g, k, v = (
        normal(4, h, n, 24, seed=i, form=form) for i, (h, n) in enumerate([(6, 70), (6, 70), (2, 133), (2, 133)])
    )
    for row, (rows, columns) in enumerate(zip(queries, keys, strict=True)):
        for t, n in ((q, rows), (g, rows), (k, columns), (v, columns)):
            t[row, :, n:] = float("nan")
    whole = [t.detach().requires_grad_() for t in (q, k, v)]
    lengths = {"query_lengths": ug.asarray(queries), "key_lengths": ug.asarray(keys, dtype="int32")}
    y = attend(*whole, is_causal=causal, enable_gqa=True, **lengths)
    y.backward(g)
    for row, (rows, columns) in enumerate(zip(queries, keys, strict=True)):
        cut = [ug.copy(t[row : row + 1, :, :n]).requires_grad_() for t, n in ((q, rows), (k, columns), (v, columns))]
        y_cut = attend(*cut, is_causal=causal, enable_gqa=True)
        y_cut.backward(g[row : row + 1, :, :rows])
        pairs = [
            (y, y_cut, rows),
            *zip([t.grad for t in whole], [t.grad for t in cut], (rows, columns, columns), strict=True),
        ]
        for got, wanted, n in pairs:
            np.testing.assert_array_equal(bits(got)[row : row + 1, :, :n], bits(wanted))
            assert not got.detach()[row, :, n:].to("float32").numpy().any()


@pytest.mark.parametrize(("length", "keys"), [(5, 9), (9, 5), (70, 200), (200, 70), (1, 9)])
def test_lower_right_is_a_mask(length: int, keys: int) -> None:
    q, k, v = normal(1, 2, length, 16), normal(1, 2, keys, 16, seed=1), normal(1, 2, keys, 16, seed=2)
    seen = np.tri(length, keys, keys - length, dtype=bool)
    y, masked = attend(q, k, v, is_causal="lower_right"), attend(q, k, v, ug.asarray(seen))
    np.testing.assert_allclose(y.numpy(), masked.numpy(), rtol=1e-5, atol=1e-6)
    near = seen & np.tri(keys, length, length - keys + 3, dtype=bool).T
    y, masked = attend(q, k, v, is_causal="lower_right", window_size=(3, 0)), attend(q, k, v, ug.asarray(near))
    np.testing.assert_allclose(y.numpy(), masked.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("causal", CAUSAL)
def test_lengths_have_gradients_of_any_order(causal: Any) -> None:
    tensors = [ug.asarray(np.random.default_rng(i).standard_normal((2, h, n, 2)), requires_grad=True)
               for i, (h, n) in enumerate([(4, 3), (2, 5), (2, 5)])]  # fmt: skip
    lengths = {"query_lengths": [2, 3], "key_lengths": [5, 2]}
    gradcheck(lambda q, k, v: attend(q, k, v, is_causal=causal, enable_gqa=True, **lengths), tensors, order=2)
    gradcheck(lambda q, k, v: attend(q, k, v, window_size=(1, 1), enable_gqa=True, **lengths), tensors)
    mask = ug.asarray(np.random.default_rng(4).standard_normal((3, 5)), requires_grad=True)
    gradcheck(lambda q, k, v, m: attend(q, k, v, m, causal, enable_gqa=True, **lengths), [*tensors, mask])


def test_calls_that_are_remembered_look_at_new_lengths() -> None:
    q, k, v = normal(2, 2, 3, 8), normal(2, 2, 9, 8, seed=1), normal(2, 2, 9, 8, seed=2)
    for n in range(1, 9):
        y = attend(q, k, v, key_lengths=ug.asarray([n, 9 - n]))
        np.testing.assert_array_equal(bits(y[:1]), bits(attend(q[:1], k[:1, :, :n], v[:1, :, :n])))


def test_lengths_under_autocast() -> None:
    q, k = normal(2, 2, 4, 8), normal(2, 2, 9, 8, seed=1)
    with ug.autocast("bfloat16"):
        y = attend(q, k, k, key_lengths=[3, 9])
    wanted = attend(*[x.to("bfloat16") for x in (q, k, k)], key_lengths=[3, 9])
    np.testing.assert_array_equal(bits(y), bits(wanted))


Q, K = ug.ones((2, 4, 3, 8)), ug.ones((2, 2, 5, 8))
MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: attend(Q, K, K, enable_gqa=True, key_lengths=[1, 6]), ArgumentError, "key_lengths holds 6: expected 0 to 5"),
    (lambda: attend(Q, K, K, enable_gqa=True, query_lengths=[-1, 3]), ArgumentError, "holds -1: expected 0 to 3"),
    (lambda: attend(Q, K, K, enable_gqa=True, key_lengths=[1]), ShapeError, r"has shape \(1,\): expected \(2,\)"),
    (lambda: attend(Q, K, K, enable_gqa=True, key_lengths=[1.0, 2.0]), FormatError, "float32: expected int32 or int64"),
    (lambda: attend(Q, K, K, is_causal="end", enable_gqa=True), ArgumentError, "expected True, False or 'lower_right'"),
    (lambda: attend(Q, Q, Q, ug.ones((3, 3), dtype="int32")), FormatError, "mask is int32: expected bool, or a float"),
    (lambda: KeyValueCache(2, 0, 5, 8), ArgumentError, "heads=0: expected a positive integer"),
    (lambda: KeyValueCache(2, 2, 5, 8, dtype="int32"), FormatError, "int32: expected a float"),
    (lambda: KeyValueCache(2, 2, 4, 8).append(K, K), CapacityError, "row 0 holds 0 tokens and would take 5 more: expected 4"),
    (lambda: KeyValueCache(2, 2, 9, 8).append(K, K[:, :1]), ShapeError, r"v has shape \(2, 1, 5, 8\): expected \(2, 2, 5, 8\)"),
    (lambda: KeyValueCache(2, 2, 9, 8, 7).append(K, K), ShapeError, r"expected \(2, 2, 5, 7\)"),
    (lambda: KeyValueCache(2, 2, 9, 8).append(K, K[:, :, :4]), ShapeError, r"v has .* expected \(2, 2, 5, 8\)"),
    (lambda: KeyValueCache(2, 2, 9, 8, dtype="bfloat16").append(K, K), FormatError, "k is float32: expected bfloat16"),
    (lambda: KeyValueCache(2, 2, 9, 8).append(K, K, [6, 1]), ArgumentError, r"lengths \[6, 1\]: expected 0 to 5"),
    (lambda: KeyValueCache(2, 2, 9, 8).append(K, K, [1, 2, 3]), ShapeError, r"expected integers of \(2,\)"),
    (lambda: KeyValueCache(2, 2, 9, 8).append(K, K.detach().requires_grad_()), GradientError, "v requires a gradient"),
    (lambda: KeyValueCache(2, 2, 9, 8).attend(Q), ShapeError, "3 queries after 0 tokens were appended"),
    (lambda: KeyValueCache(2, 2, 9, 8).attend(Q[:, :, :, :3]), ShapeError, r"expected \(2, heads, l, 8\)"),
    (lambda: KeyValueCache(2, 2, 9, 8).truncate([0, 1]), ArgumentError, "row 1 holds 0 tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), MISTAKES)
def test_mistakes(call: Callable[[], Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text):
        call()


@pytest.mark.parametrize("form", ["float32", "bfloat16", "float16"])
def test_a_cache_is_attention_on_all_tokens_so_far(form: str) -> None:
    """Bit for bit: a prompt, then tokens one by one, then several at a time."""
    q, k, v = (normal(2, h, 260, d, seed=i, form=form) for i, (h, d) in enumerate([(6, 16), (2, 16), (2, 24)]))
    cache = KeyValueCache(2, 2, 300, 16, 24, dtype=form)
    memory = cache.keys.storage, cache.values.storage
    there = 0
    for new in (200, 1, 1, 1, 1, 7, 1, 40, 1, 1):
        now = slice(there, there + new)
        there += new
        cache.append(k[:, :, now], v[:, :, now])
        y = cache.attend(q[:, :, now])
        wanted = attend(q[:, :, now], k[:, :, :there], v[:, :, :there], is_causal="lower_right", enable_gqa=True)
        np.testing.assert_array_equal(bits(y), bits(wanted))
    causal = attend(*[t[:, :, :there] for t in (q, k, v)], is_causal=True, enable_gqa=True)[:, :, -1:]
    np.testing.assert_allclose(y.to("float32").numpy(), causal.to("float32").numpy(), rtol=1e-2, atol=1e-2)
    assert cache.keys.storage is memory[0]
    assert cache.values.storage is memory[1]
    assert cache.lengths.numpy().tolist() == [there, there]
    assert not bits(cache.keys)[:, :, there:].any()


def test_rows_of_different_lengths() -> None:
    """Prompts that were padded, then tokens, of which one row has no more; memory behind the lengths is never read."""
    cache = KeyValueCache(3, 2, 20, 8)
    cache.keys[...] = float("nan")
    cache.values[...] = float("nan")
    rows: list[list[list[Any]]] = [[[], []] for _ in range(3)]
    rng = np.random.default_rng(0)
    for width, counts in ((6, [6, 2, 4]), (1, None), (1, [1, 0, 1]), (3, [1, 3, 2]), (1, None)):
        q, k, v = (ug.asarray(rng.standard_normal((3, h, width, 8)).astype(np.float32)) for h in (4, 2, 2))
        cache.append(k, v, counts)
        y = cache.attend(q)
        for row, count in enumerate(counts or [width] * 3):
            for kept, new in zip(rows[row], (k, v), strict=True):
                kept.append(new.numpy()[row : row + 1, :, :count])
            keys, values = (ug.asarray(np.concatenate(kept, axis=2)) for kept in rows[row])
            wanted = attend(q[row : row + 1, :, :count], keys, values, is_causal="lower_right", enable_gqa=True)
            np.testing.assert_array_equal(bits(y)[row : row + 1, :, :count], bits(wanted))
            assert not bits(y)[row, :, count:].any()
    assert cache.lengths.numpy().tolist() == [10, 7, 9]
    seen = attend(q, cache.keys, cache.values, enable_gqa=True, key_lengths=cache.lengths)
    np.testing.assert_array_equal(bits(cache.attend(q, is_causal=False)), bits(seen))


def test_nothing_is_written_where_one_row_is_full() -> None:
    cache = KeyValueCache(2, 1, 4, 8)
    cache.append(ug.ones((2, 1, 3, 8)), ug.ones((2, 1, 3, 8)), [3, 1])
    before = cache.keys.storage.copy()
    with pytest.raises(CapacityError, match="row 0 holds 3 tokens and would take 2 more"):
        cache.append(ug.zeros((2, 1, 2, 8)), ug.zeros((2, 1, 2, 8)))
    np.testing.assert_array_equal(cache.keys.storage, before)
    assert cache.lengths.numpy().tolist() == [3, 1]


def test_truncate_takes_tokens_back() -> None:
    q, k = normal(2, 2, 6, 8), normal(2, 2, 6, 8, seed=1)
    cache = KeyValueCache(2, 2, 10, 8)
    cache.append(k, k)
    cache.truncate([2, 5])
    cache.append(k[:, :, 3:4], k[:, :, 3:4])
    y = cache.attend(q[:, :, :1])
    there = ug.concat([k[:1, :, :2], k[:1, :, 3:4]], axis=2)
    np.testing.assert_array_equal(bits(y)[:1], bits(attend(q[:1, :, :1], there, there)))
    cache.truncate(0)
    assert cache.lengths.numpy().tolist() == [0, 0]
    cache.append(k, k)
    np.testing.assert_array_equal(bits(cache.attend(q)), bits(attend(q, k, k, is_causal=True)))


def test_a_window_moves_with_the_last_token() -> None:
    q, k = normal(1, 2, 9, 8), normal(1, 2, 9, 8, seed=1)
    cache = KeyValueCache(1, 2, 12, 8)
    whole = attend(q, k, k, is_causal=True, window_size=(3, 0))
    for i in range(9):
        cache.append(k[:, :, i : i + 1], k[:, :, i : i + 1])
        y = cache.attend(q[:, :, i : i + 1], window_size=(3, 0))
        np.testing.assert_allclose(y.numpy(), whole[:, :, i : i + 1].numpy(), rtol=1e-5, atol=1e-6)


def test_gradients_of_queries() -> None:
    """They have theirs; once a cache was written to, what it held is gone, and backward says so."""
    k = normal(1, 2, 5, 8)
    cache = KeyValueCache(1, 2, 9, 8)
    cache.append(k, k)
    q = normal(1, 2, 5, 8, seed=1).requires_grad_()
    other = q.detach().requires_grad_()
    (cache.attend(q) ** 2).sum().backward()
    (attend(other, k, k, is_causal=True) ** 2).sum().backward()
    np.testing.assert_array_equal(bits(q.grad), bits(other.grad))
    y = cache.attend(q)
    with ug.no_grad():
        cache.append(k[:, :, :1], k[:, :, :1])
    with pytest.raises(GradientError, match="written"):
        y.sum().backward()
