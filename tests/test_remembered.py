"""Functions that remember their calls: what they give must not depend on what was called before."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, AxisError, FormatError, GradientError, ShapeError
from ulpgrad.kernels import native

CALLS: dict[str, Callable[..., ug.Tensor]] = {
    "add": lambda x, y: x + y,
    "scaled": lambda x, y: x * 2.5,
    "from a number": lambda x, y: 1.5 - x,
    "twice": lambda x, y: x * x,
    "exp": lambda x, y: ug.exp(x),
    "gelu": lambda x, y: ug.gelu(x, approximate="tanh"),
    "clip": lambda x, y: ug.clip(x, -0.5, 0.5),
    "where": lambda x, y: ug.where(x > y, x, y),
    "matmul": lambda x, y: x @ y,
    "linear": lambda x, y: ug.linear(x, y, y[0], activation=None),
    "sum": lambda x, y: ug.sum(x),
    "mean": lambda x, y: ug.mean(x, axis=(0, 1), keepdims=True),
    "max": lambda x, y: ug.max(x, axis=-1),
    "var": lambda x, y: x.var(axis=0, correction=1.0),
    "softmax": lambda x, y: ug.softmax(x, axis=0),
    "layer_norm": lambda x, y: ug.layer_norm(x, (4,), y[0], None),
    "attention": lambda x, y: ug.scaled_dot_product_attention(x, y, y, is_causal=True),
    "cumulative_sum": lambda x, y: ug.cumulative_sum(x, axis=1),
    "reshape": lambda x, y: x.reshape(2, 8),
    "permute_dims": lambda x, y: ug.permute_dims(x, (1, 0)),
    "flip": lambda x, y: ug.flip(x),
    "flip of one value": lambda x, y: ug.flip(x[1, 2]),
    "expand_dims": lambda x, y: ug.expand_dims(x, axis=1) * y,
    "broadcast_to": lambda x, y: ug.broadcast_to(x[0], (3, 4)),
    "a row": lambda x, y: x[2],
    "a part": lambda x, y: x[1:, None, ..., ::-2],
    "rows by positions": lambda x, y: x[ug.argsort(y[0].detach())],
    "values by positions": lambda x, y: x[0][ug.argsort(y[0].detach())],
    "concat": lambda x, y: ug.concat([x, y, x], axis=1),
    "stack": lambda x, y: ug.stack((x, y), axis=-1),
    "stack first": lambda x, y: ug.stack([x[0], y[0]]),
    "unstack": lambda x, y: ug.unstack(x)[1],
    "roll": lambda x, y: ug.roll(x, (1, -1), axis=(0, 1)),
    "roll flat": lambda x, y: ug.roll(x, 3),
    "tile": lambda x, y: ug.tile(x, (2, 1)),
    "repeat": lambda x, y: ug.repeat(x, 3, axis=0),
    "tril": lambda x, y: ug.tril(x, k=1),
    "copy": lambda x, y: ug.copy(x),
    "std": lambda x, y: ug.std(x, axis=1),
    "logsumexp": lambda x, y: ug.logsumexp(x, axis=0),
    "diff": lambda x, y: ug.diff(x, prepend=y[:, :1]),
    "einsum": lambda x, y: ug.einsum("ij,kj->ik", x, y),
    "vecdot": lambda x, y: ug.vecdot(x, y),
    "topk": lambda x, y: ug.topk(x, 2)[0],
    "argsort": lambda x, y: ug.argsort(x, axis=0, descending=True),
    "mse_loss": lambda x, y: ug.mse_loss(x, y),
    "batch_norm": lambda x, y: ug.batch_norm(x, None, None, y[0], None, training=True),
}


def pair(form: Any = ug.float32, seed: int = 0, grad: bool = False) -> tuple[ug.Tensor, ug.Tensor]:
    rng = np.random.default_rng(seed)
    x, y = (ug.asarray(rng.standard_normal((4, 4)), dtype=form) for _ in range(2))
    return (x.requires_grad_(), y.requires_grad_()) if grad else (x, y)


def bits(t: ug.Tensor | None) -> bytes:
    return b"none" if t is None else np.ascontiguousarray(t.storage).tobytes()


def outcome(call: Callable[..., ug.Tensor], x: ug.Tensor, y: ug.Tensor) -> tuple[Any, ...]:
    """A call's result and its gradients."""
    out = call(x, y)
    if not out.requires_grad:
        return out.dtype, out.shape, bits(out)
    grads = ug.grad(out, [x, y], ug.asarray(np.arange(out.size).reshape(out.shape), dtype=out.dtype), allow_unused=True)
    return out.dtype, out.shape, bits(out), *map(bits, grads)


@pytest.mark.parametrize("form", [ug.float32, ug.float64, ug.bfloat16], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same_however_often_it_came(name: str, form: Any) -> None:
    call = CALLS[name]
    layouts = {"rows": lambda t: t, "columns": lambda t: t.T, "every other": lambda t: ug.concat([t, t])[::2]}
    for grad in (False, True):
        for move in layouts.values():
            expected = []
            for again in range(4):  # unknown, seen once, learnt, remembered
                x, y = pair(form, again % 2, grad)
                expected.append(outcome(lambda a, b, move=move: call(move(a), move(b)), x, y))
            assert expected[:2] == expected[2:]
            assert expected[0] != expected[1]  # values count, not only shapes


def test_values_that_compare_equal_are_told_apart() -> None:
    x = ug.asarray([1.0, -1.0])
    for _ in range(3):
        assert np.signbit((x * -0.0).numpy()).tolist() == [True, False]
        assert np.signbit((x * 0.0).numpy()).tolist() == [False, True]
    whole = ug.asarray([1, 2])
    for _ in range(3):
        assert (whole + 1).dtype is ug.int64
        assert (whole + 1.0).dtype is ug.get_default_dtype()


def test_values_that_are_looked_at_count() -> None:
    """An index that is a tensor, a mask, or repeats of their own: calls that look alike come to different things."""
    x = ug.asarray([2.0, 3.0, 5.0], requires_grad=True)
    for position in (0, 1, 2, 0):
        at = ug.asarray(position)
        assert x[at].item() == x.tolist()[position]
        assert x[at[None]].tolist() == ug.take(x, at[None]).tolist() == [x.tolist()[position]]
        assert ug.repeat(x, ug.asarray([position, 1, 0])).tolist() == [2.0] * position + [3.0]
        assert ug.count_nonzero(x == x[position]).item() == 1
        assert ug.grad(x[at], x).tolist() == [float(i == position) for i in range(3)]


def test_targets_that_are_ignored_now_and_then_count() -> None:
    """The mean of a cross entropy is over what is not ignored, also once calls without such rows are remembered; and a class
    that does not exist is named each time."""
    values = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    for requires_grad in (False, True):
        logits = ug.asarray(values, requires_grad=requires_grad)
        for ignored in (-100, 2):  # no class, and one of them
            for name in (*["none"] * 4, "some", "none", "some"):
                target = np.array([0, 1, 3 if name == "none" else ignored, 3, 0, 1])
                kept = target != ignored
                losses = ug.cross_entropy(logits.detach(), ug.asarray(target), ignore_index=ignored, reduction="none")
                mean = ug.cross_entropy(logits, ug.asarray(target), ignore_index=ignored)
                np.testing.assert_allclose(mean.item(), losses.numpy()[kept].mean(), rtol=1e-6)
            with pytest.raises(ArgumentError, match=r"target\[2\] is 9"):
                ug.cross_entropy(logits, ug.asarray(np.array([0, 1, 9, 3, 0, 1])), ignore_index=ignored)


def test_draws_go_on_from_where_the_last_one_ended() -> None:
    """Remembered or not, `rand` takes the next words of the default generator; a seed starts it afresh."""
    for draw in (ug.random.rand, ug.random.randn):
        for dtype in (ug.float32, ug.bfloat16, ug.float64):
            expected = ug.random.Generator(7)
            ug.random.manual_seed(7)
            for _ in range(5):
                found, wanted = draw(2, 3, dtype=dtype), draw(2, 3, dtype=dtype, generator=expected)
                np.testing.assert_array_equal(found.storage, wanted.storage)
            assert ug.random.get_state() == expected.get_state()


def test_new_tensors_have_memory_of_their_own_and_follow_the_default_format() -> None:
    for make in (lambda: ug.zeros(3), lambda: ug.ones((2, 2)), lambda: ug.arange(4.0), lambda: ug.full((2,), 7.0)):
        expected = make().tolist()
        for _ in range(5):
            made = make()
            assert made.tolist() == expected
            made[0] = -1.0
        try:
            ug.set_default_dtype(ug.float64)
            assert [make().dtype for _ in range(3)] == [ug.float64] * 3
        finally:
            ug.set_default_dtype(ug.float32)
        assert make().dtype is ug.float32
    for _ in range(4):
        assert ug.ones(2, requires_grad=True).requires_grad
        assert not ug.ones(2).requires_grad


def test_views_share_memory_and_what_is_written_through_them_is_noticed() -> None:
    for _ in range(4):
        x = ug.asarray([[1.0, 2.0], [3.0, 4.0]])
        for view in (x[1], x.T[:, 1], x.reshape(-1)[2:], ug.flip(x)[0, ::-1], ug.unstack(x)[1]):
            before = x[1].tolist()
            view[...] = view + 1.0
            assert x[1].tolist() == [v + 1.0 for v in before]
        w = ug.asarray([2.0, 3.0], requires_grad=True)
        out = w * x[0]
        x.T[0] = 9.0
        with pytest.raises(GradientError, match="written to"):
            ug.sum(out).backward()
        with pytest.raises(ug.errors.ArgumentError, match="read-only"):
            ug.broadcast_to(x, (2, 2, 2))[0] = 1.0


def test_lists_that_contain_themselves_and_long_lists_are_left_to_the_function() -> None:
    endless: list[object] = []
    endless.append(endless)
    x = ug.asarray([1.0])
    for _ in range(3):
        with pytest.raises(ug.errors.UlpgradError):
            ug.concat(endless)
        assert ug.concat([x] * 300).shape == (300,)
        assert ug.concat([x, ug.asarray([2.0]), np.asarray([3.0], np.float32)]).tolist() == [1.0, 2.0, 3.0]


def test_one_tensor_twice_is_not_two_tensors() -> None:
    x, y = ug.asarray([2.0, 3.0]), ug.asarray([5.0, 7.0])
    for _ in range(3):
        assert (x * x).tolist() == [4.0, 9.0]
        assert (x * y).tolist() == [10.0, 21.0]


def test_gradients_are_recorded_where_they_are_wanted() -> None:
    x = ug.asarray([1.0, 2.0], requires_grad=True)
    for _ in range(3):
        assert ug.exp(x).requires_grad
        with ug.no_grad():
            assert not ug.exp(x).requires_grad
        assert not ug.exp(x.detach()).requires_grad
        assert not (x > x).requires_grad
        y = ug.exp(x)
        hooked: list[float] = []
        y.register_hook(lambda g, into=hooked: into.append(float(g.sum())))
        y.retain_grad()
        x.grad = None
        ug.sum(y).backward()
        assert hooked == [2.0]
        assert y.grad is not None
        np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]), rtol=1e-6)  # type: ignore[union-attr]
        second = ug.grad(ug.grad(ug.sum(ug.exp(x)), x, create_graph=True).sum(), x)
        np.testing.assert_allclose(second.numpy(), np.exp([1.0, 2.0]), rtol=1e-6)


def test_a_saved_tensor_that_was_written_to_is_noticed() -> None:
    for _ in range(3):
        x, y = ug.asarray([1.0, 2.0], requires_grad=True), ug.asarray([3.0, 4.0])
        out = x * y
        y[0] = 5.0
        with pytest.raises(GradientError, match="written to"):
            ug.sum(out).backward()
        out = ug.exp(x)
        out.detach()[0] = 7.0
        with pytest.raises(GradientError, match="written to"):
            ug.sum(out).backward()


def test_errors_are_raised_each_time() -> None:
    x, y = ug.ones((2, 3)), ug.ones((2, 3))
    for _ in range(3):
        with pytest.raises(ShapeError, match="inner sizes differ"):
            x @ y
        with pytest.raises(AxisError):
            ug.sum(x, axis=5)
        with pytest.raises(FormatError):
            ug.softmax(ug.asarray([1, 2]))
        with pytest.raises(ShapeError, match="do not fit shape"):
            x.reshape(4, 2)
        with pytest.raises(AxisError):
            x[5]
        with pytest.raises(ShapeError, match="differ elsewhere"):
            ug.concat([x, y.T])


def test_pins_logs_and_policies_are_heeded() -> None:
    x, y = pair()
    heard = []
    for _ in range(3):
        x @ y
        with ug.use(matmul="cpu/reference"):
            x @ y
        with ug.autocast(ug.bfloat16):
            assert (x @ y).dtype is ug.bfloat16
        assert (x @ y).dtype is ug.float32
        heard.append([call[0].name for call in ug.dispatch.calls_of(lambda: x @ y)])
    assert heard == [["matmul"]] * 3


def test_numpy_events_that_are_errors_to_the_caller_are_values_here() -> None:
    x = ug.asarray([0.0, 1.0])
    with np.errstate(all="raise"):
        for _ in range(3):
            assert ug.log(x).tolist() == [-np.inf, 0.0]
            assert (x / 0.0).tolist()[1] == np.inf


def test_the_default_dtype_of_the_day_counts() -> None:
    whole = ug.asarray([1, 2])
    try:
        for form in (ug.float32, ug.float64, ug.float32):
            ug.set_default_dtype(form)
            for _ in range(3):
                assert (whole + 1.5).dtype is form
                assert (2.5 * whole).dtype is form
    finally:
        ug.set_default_dtype(ug.float32)


def test_a_kernel_that_is_registered_later_is_taken() -> None:
    """In a process of its own, since a rung stays."""
    code = """
import numpy as np, ulpgrad as ug
from ulpgrad.kernels.registry import find, kernel
x = ug.asarray([[2.0, 3.0]])
calls = {"exp": lambda: ug.exp(x), "add": lambda: x + x, "matmul": lambda: x @ x.T}
for name, call in calls.items():
    for _ in range(4):
        before = call()
    @kernel(find(name), "cpu/mine", rank=1000, formats=[ug.float32], idea="A constant.")
    def mine(*arrays, shape=before.shape, **params):
        return np.full(shape, 42, np.float32)
    for _ in range(4):
        assert set(call().numpy().ravel().tolist()) == {42.0}, name
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_warning_of_numpy_reaches_the_caller() -> None:
    """In a process whose filters are the usual ones: overflow, division by zero and NaN are values."""
    code = """
import sys, ulpgrad as ug
for form in (ug.float16, ug.float32, ug.float64):
    x = ug.asarray([0.0, -1.0, 6e4], dtype=form)
    for _ in range(4):
        x / 0.0, x // 0.0, x % 0.0, x * 6e4, x ** 90.0, x @ x, ug.log(x), ug.asin(x), ug.atanh(x), ug.exp(x), ug.var(x)
        ug.asarray([1, 2]) // 0, ug.asarray([1, 2]) % 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_memory_of_a_result_is_its_own() -> None:
    x = ug.asarray([1.0, 2.0])
    results = [x + 1.0 for _ in range(4)]
    results[2][0] = 9.0
    assert [r.tolist() for r in results] == [[2.0, 3.0], [2.0, 3.0], [9.0, 3.0], [2.0, 3.0]]


def test_many_shapes_and_threads() -> None:
    def work(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for _ in range(300):
            n = int(rng.integers(1, 1500))
            given = rng.integers(-9, 9, n).astype(np.float32)
            x = ug.asarray(given)
            if float(ug.sum(x + 1.0)) != given.sum() + n:
                return False
        return True

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, range(6)))


def test_they_are_functions_to_the_world() -> None:
    assert list(inspect.signature(ug.softmax).parameters) == ["x", "axis"]
    assert ug.softmax.__name__ == "softmax"
    assert "exp" in (ug.softmax.__doc__ or "")
    assert pickle.loads(pickle.dumps(ug.softmax)) is ug.softmax
    assert copy.deepcopy({"f": ug.relu})["f"] is ug.relu
    x = ug.asarray([-1.0, 1.0])
    assert x.relu().tolist() == ug.Tensor.relu(x).tolist() == list(map(float, ug.relu(x).numpy()))  # type: ignore[attr-defined]
    assert "softmax" in repr(ug.softmax)


@pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
def test_a_call_that_comes_again_does_not_enter_the_function() -> None:
    from ulpgrad.remembered import remembered

    entered = []

    @remembered
    def product(x: ug.Tensor, y: ug.Tensor) -> ug.Tensor:
        entered.append(x.shape)
        return ug.ops.linalg._matmul(x, y)

    x, y = pair()
    expected = (x @ y).tolist()
    for _ in range(5):
        assert product(x, y).tolist() == expected
    assert len(entered) == 2  # seen, and learnt
    product(x, y[:, :2])
    assert len(entered) == 3
    weight = ug.nn.Parameter(y)
    for _ in range(5):
        assert product(x, weight).detach().tolist() == expected
    assert len(entered) == 5  # a layer's own parameters are tensors like others
    product(x, weight).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == (x.T @ ug.ones_like(x @ y)).tolist()


@pytest.mark.parametrize("dtype", [None, ug.bfloat16, ug.int32, ug.bool], ids=str)
def test_ones_by_chance_are_drawn_from_the_generator(dtype: Any) -> None:
    """Remembered or not, `bernoulli` takes the next words of the default generator, for a number as for a tensor of chances;
    a chance outside is refused every time."""
    for chances in (0.25, ug.asarray(np.full(40, 0.25, np.float32))):
        drawn = []
        for seed in (3, 3, 3, 4, 3, 3):
            ug.manual_seed(seed)
            first, second = (ug.bernoulli(chances, (40,), dtype=dtype) for _ in range(2))
            drawn.append((first.dtype, bits(first), bits(second)))
            assert bits(first) != bits(second)
            assert set(np.asarray(first.numpy(), np.float64).tolist()) == {0.0, 1.0}
        assert drawn[0] == drawn[1] == drawn[2] == drawn[4] == drawn[5] != drawn[3]
    for chance in (0.5, 1.5, 0.5, float("nan"), -0.5):
        given = ug.asarray(np.array([0.5, chance], np.float32))
        for _ in range(3):
            if chance == 0.5:
                assert ug.bernoulli(given, dtype=dtype).shape == (2,)
                continue
            with pytest.raises(ArgumentError, match="from 0 to 1"):
                ug.bernoulli(given, dtype=dtype)
            with pytest.raises(ArgumentError, match="from 0 to 1"):
                ug.bernoulli(chance, (2,), dtype=dtype)


def test_positions_outside_are_named_however_often() -> None:
    for grad in (False, True):
        x = ug.asarray([2.0, 3.0, 5.0], requires_grad=grad)
        for position in (-1, -3, 2, 2, 3, -4, 0):
            at = ug.asarray(np.array([position, 0]))
            if -3 <= position < 3:
                assert x[at].tolist() == [x.tolist()[position], 2.0]
            else:
                with pytest.raises(AxisError, match=f"getitem: index {position} is out of bounds"):
                    x[at]
