"""The graph: what backward accumulates, what it frees, and what it refuses."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import GradientError, ShapeError


def leaf(*values: Any) -> ug.Tensor:
    return ug.asarray(list(values), dtype=ug.float64, requires_grad=True)


def equal(x: ug.Tensor | None, expected: Any) -> None:
    assert x is not None
    np.testing.assert_allclose(x.detach().numpy(), expected, rtol=1e-14)


# Walking back


def test_backward_accumulates_into_leaves() -> None:
    x, y = leaf(1.0, 2.0), leaf(3.0, 4.0)
    (x * y).sum().backward()
    (x * 2).sum().backward()
    equal(x.grad, [5, 6])
    equal(y.grad, [1, 2])
    assert not x.grad.requires_grad
    x.grad = None
    x.sum().backward()
    equal(x.grad, [1, 1])


def test_diamond_and_reuse() -> None:
    x = leaf(2.0)
    a = x * x
    b, c = a + x, a * 3
    (b * c + b).sum().backward()  # (x^2 + x)(3 x^2) + x^2 + x
    equal(x.grad, [12 * 8 + 9 * 4 + 2 * 2 + 1])
    x = leaf(1.5)
    y = x
    for _ in range(30):
        y = y + y  # 2^30 paths, 30 nodes
    y.sum().backward()
    equal(x.grad, [2.0**30])


def test_explicit_gradient_and_seeds() -> None:
    x = leaf(1.0, 2.0)
    (x * x).backward(ug.asarray([1.0, 10.0]))
    equal(x.grad, [2, 40])
    with pytest.raises(GradientError, match=r"shape \(2,\) needs an explicit gradient"):
        (x * x).backward()
    with pytest.raises(ShapeError, match=r"gradient of shape \(3,\) for a tensor of shape \(2,\)"):
        (x * x).backward(ug.ones(3))
    with pytest.raises(GradientError, match="does not require a gradient"):
        ug.ones(()).backward()
    z = leaf(3.0)
    z.backward()
    equal(z.grad, [1])


def test_grad_leaves_dot_grad_alone_and_takes_intermediates() -> None:
    x = leaf(1.0, 2.0)
    a = x * x
    y = (a * a).sum()
    ga, gx = ug.grad(y, [a, x])
    equal(ga, [2, 8])
    equal(gx, [4, 32])
    assert x.grad is None
    first, again = ug.grad((x * x).sum(), [x, x])
    equal(first, again.numpy())
    equal(ug.grad([(x * x).sum(), (x * 3).sum()], x), [5, 7])


def test_grad_of_what_is_not_used() -> None:
    x, y = leaf(1.0), leaf(2.0)
    with pytest.raises(GradientError, match="do not depend on input 1; allow_unused=True"):
        ug.grad((x * 2).sum(), [x, y])
    gx, gy = ug.grad((x * 2).sum(), [x, y], allow_unused=True)
    equal(gx, [2])
    assert gy is None
    with pytest.raises(GradientError, match=r"input 0 of shape \(1,\) does not require"):
        ug.grad((x * 2).sum(), ug.ones(1))
    with pytest.raises(ShapeError, match="1 outputs but 2 grad_outputs"):
        ug.grad((x * 2).sum(), x, [None, None])


def test_only_the_nodes_between_run() -> None:
    x, y = leaf(1.0), leaf(2.0)
    called = []

    class Watched(ug.Function):
        @staticmethod
        def forward(ctx: Any, t: ug.Tensor) -> ug.Tensor:
            return t * 1

        @staticmethod
        def backward(ctx: Any, g: ug.Tensor) -> ug.Tensor:
            called.append(1)
            return g

    z = (x * Watched.apply(y)).sum()
    ug.grad(z, x, retain_graph=True)
    assert called == []
    ug.grad(z, y)
    assert called == [1]


def test_higher_derivatives() -> None:
    x = leaf(2.0)
    y = x**5
    for expected in (80.0, 160.0, 240.0, 240.0, 120.0):
        (y,) = ug.grad([y], [x], [ug.ones_like(y)], create_graph=True)
        equal(y, [expected])
    x = leaf(0.3)
    (x * x * x).sum().backward(create_graph=True)
    g = x.grad
    x.grad = None
    g.sum().backward()
    equal(x.grad, [6 * 0.3])


# Modes


def test_no_grad_and_enable_grad() -> None:
    x = leaf(1.0)
    with ug.no_grad():
        y = x * 2
        assert not ug.is_grad_enabled()
        with ug.enable_grad():
            z = x * 2
    assert not y.requires_grad
    assert y.is_leaf
    assert z.requires_grad
    assert ug.is_grad_enabled()

    @ug.no_grad()
    def twice(t: ug.Tensor) -> ug.Tensor:
        return t * 2

    assert not twice(x).requires_grad
    with pytest.raises(KeyError), ug.no_grad():
        raise KeyError
    assert ug.is_grad_enabled()


def test_no_grad_object_is_reentrant() -> None:
    mode = ug.no_grad()
    with mode:
        with mode:
            pass
        assert not ug.is_grad_enabled()
    assert ug.is_grad_enabled()


def test_grad_mode_is_per_thread() -> None:
    seen: list[bool] = []
    with ug.no_grad():
        thread = threading.Thread(target=lambda: seen.append(ug.is_grad_enabled()))
        thread.start()
        thread.join()
        assert not ug.is_grad_enabled()
    assert seen == [True]


def test_backward_in_threads_gives_each_its_own_gradient() -> None:
    def work(k: int, out: list[float]) -> None:
        for _ in range(20):
            x = ug.full((8,), float(k), requires_grad=True)
            (x * x * ug.exp(x * 0)).sum().backward()
            out.append(float(x.grad[0]))

    results: list[list[float]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=work, args=(k, r)) for k, r in enumerate(results)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == [[2.0 * k] * 20 for k in range(4)]


def test_requires_grad_rules() -> None:
    with pytest.raises(GradientError, match="integers and bools have no gradients"):
        ug.arange(3).requires_grad_()
    y = leaf(1.0) * 2
    with pytest.raises(GradientError, match=r"use x\.detach"):
        y.requires_grad_(False)
    assert leaf(1.0).requires_grad_(False).requires_grad is False
    assert not y.detach().requires_grad
    assert np.shares_memory(y.detach().storage, y.storage)
    assert not (leaf(1.0) > 0).requires_grad
    assert not leaf(1.0).astype(ug.int32).requires_grad
    with pytest.raises(GradientError, match=r"x\.detach\(\)\.numpy"):
        leaf(1.0).numpy()


# Hooks


def test_hooks_on_leaves_and_results() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    seen = []
    remove = y.register_hook(lambda g: seen.append(g.tolist()))
    y.register_hook(lambda g: g * 10)
    x.register_hook(lambda g: g + 1)
    y.sum().backward(retain_graph=True)
    equal(x.grad, [31, 31])
    assert seen == [[1.0, 1.0]]
    remove()
    y.sum().backward()
    assert len(seen) == 1
    equal(x.grad, [62, 62])
    with pytest.raises(GradientError, match="does not require"):
        ug.ones(1).register_hook(lambda g: g)


def test_leaf_hook_sees_the_sum_once() -> None:
    x = leaf(1.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.tolist()))
    (x * 2 + x * 3).sum().backward()
    assert seen == [[5.0]]


def test_retain_grad() -> None:
    x = leaf(1.0, 2.0)
    y = x * 3
    y.retain_grad()
    z = y * y
    z.sum().backward()
    equal(y.grad, [6, 12])
    assert z.grad is None
    x.retain_grad()
    assert y.is_leaf is False


# Freeing


def test_a_freed_graph_says_so() -> None:
    x = leaf(1.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    equal(x.grad, [4])
    with pytest.raises(GradientError, match="freed by an earlier backward; pass retain_graph=True"):
        y.backward()


def test_memory_goes_as_backward_goes() -> None:
    gc.collect()
    gc.disable()
    try:
        x = ug.ones(1000, requires_grad=True)
        a = ug.exp(x)
        b = ug.sin(a)
        kept = [weakref.ref(a.storage), weakref.ref(b.storage)]
        loss = (b * b).sum()
        del a, b
        assert all(k() is not None for k in kept)
        loss.backward()
        assert all(k() is None for k in kept), "saved tensors outlive backward"
        graph = weakref.ref(loss._node[0])
        del loss
        assert graph() is None, "the graph holds itself"
        y = ug.tanh(ug.exp(x))  # saves its own output
        saved = weakref.ref(y._node[0])
        del y
        assert saved() is None, "a node that saved its output holds itself"
    finally:
        gc.enable()


def test_a_saved_tensor_is_let_go_before_earlier_nodes_run() -> None:
    x = ug.ones(10, requires_grad=True)
    a = ug.exp(x)
    alive: list[bool] = []
    a.register_hook(lambda g: alive.append(saved() is not None))
    b = ug.exp(a)
    saved = weakref.ref(b.storage)
    loss = b.sum()
    del b
    loss.backward()
    assert alive == [False]


def test_deep_chains_neither_recurse_nor_leak() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(10_000):
        y = y + 0.001
    y.sum().backward()
    equal(x.grad, [1])
    z = x
    for _ in range(10_000):
        z = z * 1.0
    node = weakref.ref(z._node[0])
    del z  # without a walk back: deleting must not recurse either
    gc.collect()
    assert node() is None
    w = x
    for _ in range(3_000):
        w = ug.tanh(w) + w[::-1]
    ug.grad(w.sum(), x, create_graph=True)


# Writing in place

WRITES: dict[str, Callable[[ug.Tensor], Any]] = {
    "itself": lambda x: x,
    "a view": lambda x: x[1:],
    "a reshaped view": lambda x: ug.reshape(x, (1, -1)),
    "a view of a view": lambda x: ug.flip(ug.reshape(x, (-1, 1)))[0],
    "detach": lambda x: x.detach(),
    "a view of detach": lambda x: x.detach()[:1],
    "from_dlpack": ug.from_dlpack,
    "asarray": ug.asarray,
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("early", [False, True])
def test_writing_into_what_was_saved_raises(name: str, early: bool) -> None:
    x = ug.asarray([1.0, 2.0, 3.0])
    w = ug.ones(3, requires_grad=True)
    target = WRITES[name](x) if early else None
    y = (w * x).sum()
    (WRITES[name](x) if target is None else target)[...] = 7.0
    with pytest.raises(GradientError, match=r"backward of multiply: a tensor of shape \(3,\) saved .* written to"):
        y.backward()


def test_writing_into_a_saved_result_raises() -> None:
    x = leaf(0.5, 1.0)
    y = ug.tanh(x)
    y.detach()[0] = 5.0
    with pytest.raises(GradientError, match="backward of tanh"):
        y.sum().backward()


def test_writing_what_was_not_saved_is_fine() -> None:
    x = ug.asarray([1.0, 2.0])
    w = leaf(1.0, 1.0)
    y = (w + x).sum()
    x[0] = 5
    y.backward()
    equal(w.grad, [1, 1])


def test_a_leaf_is_written_only_without_grad() -> None:
    w = leaf(1.0, 2.0)
    with pytest.raises(GradientError, match="requires a gradient"):
        w[0] = 3.0
    with pytest.raises(GradientError, match="requires a gradient"):
        (w * 2)[0] = 3.0
    with pytest.raises(GradientError, match="value requires a gradient"):
        ug.zeros(2)[0] = w[0]
    y = (w * w).sum()
    with ug.no_grad():
        w[0] = 3.0
    with pytest.raises(GradientError, match="written to"):
        y.backward()
    (w * w).sum().backward()
    equal(w.grad, [6, 4])


def test_pieces_of_a_tensor_share_one_gradient() -> None:
    """Picked pieces are added into one buffer, wherever else the tensor is used; overlaps, views of views and steps too."""
    rng = np.random.default_rng(0)
    for dtype in (ug.float64, ug.float32, ug.bfloat16):
        x = ug.asarray(rng.standard_normal((4, 6)), dtype=dtype).requires_grad_()
        h = x * 2.0
        total = (h[1] * h[:3, 1:5][2, 1]).sum() + (h[::2, ..., -3:] * 3.0).sum() + (h * h).sum() + h[2:, None].sum()
        total = total + (x[0] * x[1]).sum() + x[0, 0] + (x * x[::-1]).sum()
        total.backward()
        plain = x.detach().to(ug.float64).numpy()
        expected = np.zeros((4, 6))
        h64 = 2 * plain
        gh = 2 * h64
        gh[1] += h64[2, 2]
        gh[2, 2] += h64[1].sum()
        gh[::2, -3:] += 3.0
        gh[2:] += 1.0
        expected += 2 * gh
        expected[0] += plain[1]
        expected[1] += plain[0]
        expected[0, 0] += 1
        expected += 2 * plain[::-1]
        assert x.grad is not None
        np.testing.assert_allclose(
            x.grad.to(ug.float64).numpy(), expected, rtol=0.1 if dtype is ug.bfloat16 else 1e-5, atol=1e-4
        )


def test_gradients_of_pieces_are_nobody_elses_memory() -> None:
    x = ug.ones((3, 4)).requires_grad_()
    seen = []
    y = x * 1.0
    y.register_hook(lambda g: seen.append(g.storage.copy()))
    a, b = y[0], y[1]
    weight = ug.ones((4,)).requires_grad_()
    (a * weight + b * weight + y[0] * 2.0).sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert seen[0].tolist() == [[3.0] * 4, [1.0] * 4, [0.0] * 4] == x.grad.tolist()
    assert weight.grad.tolist() == [2.0] * 4
