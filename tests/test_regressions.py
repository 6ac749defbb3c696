"""Defects that were found by using ulpgrad beside NumPy and torch: one test each, named after what was wrong."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn, optim
from ulpgrad.errors import ArgumentError, FormatError, GradientError, ShapeError, UlpgradError


def leaf(*shape: int) -> ug.Tensor:
    return ug.ones(shape, requires_grad=True)


# Gradients own their memory


def test_two_leaves_shared_one_gradient() -> None:
    a, b = leaf(3), leaf(3)
    (a + b).backward(ug.ones(3))
    assert a.grad is not None
    assert b.grad is not None
    a.grad[0] = 7.0
    assert b.grad.tolist() == [1.0, 1.0, 1.0]


def test_gradient_of_a_sum_could_not_be_written() -> None:
    a = leaf(3)
    a.sum().backward()
    assert a.grad is not None
    a.grad[0] = 7.0
    assert a.grad.tolist() == [7.0, 1.0, 1.0]


def test_gradient_shared_memory_with_the_one_given_to_backward() -> None:
    a, seed = leaf(3), ug.ones(3)
    ug.positive(a).backward(seed)
    seed[0] = 7.0
    assert a.grad is not None
    assert a.grad.tolist() == [1.0, 1.0, 1.0]


def test_retained_gradient_shared_memory_with_a_leafs() -> None:
    a = leaf(3)
    y = ug.positive(a)
    y.retain_grad()
    y.backward(ug.ones(3))
    assert a.grad is not None
    assert y.grad is not None
    y.grad[0] = 7.0
    assert a.grad.tolist() == [1.0, 1.0, 1.0]


def test_gradient_shared_memory_with_what_a_function_saved() -> None:
    kept = ug.ones(3)

    class Constant(ug.Function):
        @staticmethod
        def forward(ctx: Any, x: ug.Tensor) -> ug.Tensor:
            return x * 1.0

        @staticmethod
        def backward(ctx: Any, *gradients: ug.Tensor) -> ug.Tensor:
            return kept

    a = leaf(3)
    Constant.apply(a).backward(ug.ones(3))
    assert a.grad is not None
    a.grad[0] = 7.0
    assert kept.tolist() == [1.0, 1.0, 1.0]


# Hooks and functions of the user's


@pytest.mark.parametrize("given", [5.0, np.ones(3), ug.ones((2, 2))])
def test_hook_could_replace_a_gradient_by_anything(given: Any) -> None:
    a = leaf(3)
    a.register_hook(lambda g: given)
    with pytest.raises(UlpgradError, match="hook"):
        (a * 2.0).sum().backward()


def test_hook_could_change_the_format_of_a_gradient() -> None:
    a = leaf(3)
    a.register_hook(lambda g: g.astype(ug.float64))
    a.sum().backward()
    assert a.grad is not None
    assert a.grad.dtype is ug.float32


def test_removing_a_hook_twice_raised() -> None:
    a = leaf(3)
    remove = a.register_hook(lambda g: None)
    remove()
    remove()


def test_function_returning_a_number_as_gradient_raised_an_attribute_error() -> None:
    class Number(ug.Function):
        @staticmethod
        def forward(ctx: Any, x: ug.Tensor) -> ug.Tensor:
            return x * 2.0

        @staticmethod
        def backward(ctx: Any, *gradients: ug.Tensor) -> Any:
            return 3.0

    with pytest.raises(GradientError, match="Number: expected a Tensor as gradient, got float"):
        Number.apply(leaf(3)).sum().backward()


# Recording on and off


def test_no_grad_did_not_reach_into_a_decorated_generator() -> None:
    @ug.no_grad()
    def doubles(x: ug.Tensor) -> Iterator[ug.Tensor]:
        for i in range(3):
            yield x * float(i)

    for y in doubles(leaf(3)):
        assert ug.is_grad_enabled()
        assert not y.requires_grad


def test_decorated_function_called_in_two_threads_raised() -> None:
    entered, go_on = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    @ug.no_grad()
    def call(inside: Callable[[], object]) -> None:
        inside()

    def wait() -> None:
        entered.set()
        go_on.wait(10)

    def run() -> None:
        try:
            call(wait)
        except BaseException as error:
            failures.append(error)

    other = threading.Thread(target=run)

    def leave_first() -> None:  # the thread that came in first leaves while this one is still inside
        go_on.set()
        other.join()

    other.start()
    entered.wait(10)
    call(leave_first)
    assert not failures
    assert ug.is_grad_enabled()


# Beside NumPy


@pytest.mark.parametrize("left", [np.ones((3, 3), np.float32), np.float32(2), np.float64(2)])
def test_numpy_on_the_left_lost_the_gradient_or_refused(left: Any) -> None:
    x = leaf(3, 3)
    for out in (left * x, left - x, left / x):
        assert isinstance(out, ug.Tensor)
        assert out.requires_grad
        assert out.dtype is ug.float32
    assert isinstance(left == x, ug.Tensor)


def test_misaligned_numpy_memory_was_taken_and_then_refused_by_kernels() -> None:
    values = np.zeros(29, np.uint8)[1:].view(np.float32)
    values[:] = np.arange(7)
    x = ug.asarray(values)
    assert (x @ x).item() == 91.0
    assert ug.softmax(x).shape == (7,)
    with pytest.raises(ArgumentError, match="without a copy"):
        ug.asarray(values, copy=False)


def test_read_only_parameter_failed_at_the_step_with_a_numpy_error() -> None:
    values = np.ones(3, np.float32)
    values.flags.writeable = False
    with pytest.raises(ArgumentError, match="read-only"):
        optim.SGD([nn.Parameter(values)], lr=0.1)


def test_tiny_numbers_raised_under_the_users_error_settings() -> None:
    with np.errstate(all="raise"):
        assert ug.asarray([1e-300, 1e-40]).tolist()[0] == 0.0
        assert (ug.ones(2) * 1e-300).tolist() == [0.0, 0.0]
        ug.random.normal(0.0, 1e-42, (100,))
        ug.random.uniform(0.0, 1e-42, (100,))
        nn.BatchNorm1d(1)(ug.asarray([[1e30], [-1e30]]))


def test_uniform_range_beyond_the_format_gave_infinities() -> None:
    with pytest.raises(ArgumentError, match="cannot hold the distance"):
        ug.random.uniform(-3e38, 3e38, (4,))


# Numbers


def test_remainder_gradient_was_off_by_one_where_the_quotient_rounds_to_a_whole_number() -> None:
    y = ug.asarray([0.6640625], dtype=ug.bfloat16, requires_grad=True)
    for numerator in np.linspace(1.0, 3.0, 200):
        x = ug.asarray([numerator], dtype=ug.bfloat16)
        y.grad = None
        ug.remainder(x, y).backward()
        assert y.grad is not None
        assert y.grad.item() == -(x.item() // y.item())


def test_running_variance_below_eps_was_lost_in_rounding() -> None:
    values = np.random.default_rng(0).standard_normal((64, 2)) * [1e-5, 1.0]
    layer = nn.BatchNorm1d(2, momentum=1.0)
    x = ug.asarray(values, dtype=ug.float32)
    layer(x)
    assert layer.running_var is not None
    np.testing.assert_allclose(layer.running_var.numpy(), x.numpy().astype(np.float64).var(0, ddof=1), rtol=1e-5)


# Memory


def test_listing_parameters_left_a_reference_cycle_behind() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    gc.collect()
    gc.disable()
    try:
        list(model.parameters())
        model.state_dict()
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("make", [ug.zeros, ug.ones, ug.empty, ug.random.rand, lambda s: ug.full(s, 1.0)])
def test_shape_beyond_any_memory_raised_a_numpy_error(make: Callable[[tuple[int, int]], object]) -> None:
    with pytest.raises(ShapeError, match="no array can hold"):
        make((2**40, 2**40))


@pytest.mark.parametrize("settings", [{"kernel_size": 2**62, "padding": 2**61}, {"kernel_size": 2, "padding": 2**62}])
def test_window_settings_that_overflow_hung_or_wrote_outside(settings: dict[str, Any]) -> None:
    for pool in (ug.max_pool2d, ug.avg_pool2d):
        with pytest.raises(ArgumentError, match="at most"):
            pool(ug.ones((1, 1, 4, 4)), **settings)
    with pytest.raises(ArgumentError, match="at most"):
        ug.conv2d(ug.ones((1, 1, 4, 4)), ug.ones((1, 1, 1, 1)), padding=2**40)


def test_gradient_of_a_large_mean_in_float16_is_rounded_once() -> None:
    """1 / 1,000,000 is a subnormal float16, 5 % off; the gradient used to be multiplied by it."""
    x = ug.zeros((1_000_000,), dtype=ug.float16, requires_grad=True)
    (ug.mean(x) * 1024.0).backward()
    assert x.grad is not None
    assert x.grad.numpy()[0] == np.float16(1024 / 1_000_000)


@pytest.mark.parametrize("pool", [ug.max_pool2d, ug.avg_pool2d])
def test_windows_far_larger_than_the_image_were_walked_tap_by_tap(pool: Callable[..., ug.Tensor]) -> None:
    wide = 2**30  # at a nanosecond a tap, and six rows of them, half a minute; now none is visited
    x = ug.reshape(ug.arange(1.0, 25.0), (1, 1, 4, 6))
    started = time.perf_counter()
    y = pool(x, kernel_size=(1, wide), stride=1, padding=(0, wide // 2))
    assert y.shape == (1, 1, 4, 7)
    assert y[0, 0, 0, 3].item() == (6.0 if pool is ug.max_pool2d else ug.asarray(21.0 / wide).item())
    assert time.perf_counter() - started < 1


def test_filters_far_larger_than_the_image_took_the_square_of_their_size() -> None:
    side = 512
    x = ug.asarray(np.random.default_rng(0).integers(-4, 5, (1, 1, 4, 5)), dtype=ug.float32).requires_grad_()
    w = ug.asarray(np.random.default_rng(1).integers(-4, 5, (1, 1, side, side)), dtype=ug.float32).requires_grad_()
    started = time.perf_counter()
    y = ug.conv2d(x, w, padding=side // 2)
    y.sum().backward()
    assert time.perf_counter() - started < 2
    padded, filters = np.pad(x.detach().numpy()[0, 0], side // 2), w.detach().numpy()[0, 0]
    assert y.shape == (1, 1, 5, 6)
    expected = [[(padded[i : i + side, j : j + side] * filters).sum() for j in range(6)] for i in range(5)]
    np.testing.assert_array_equal(y.detach().numpy()[0, 0], expected)
    assert x.grad is not None
    seen = [[filters[side // 2 + i - 4 : side // 2 + i + 1, side // 2 + j - 5 : side // 2 + j + 1].sum() for j in range(5)]
            for i in range(4)]  # fmt: skip
    np.testing.assert_array_equal(x.grad.numpy()[0, 0], seen)
    assert w.grad is not None
    sums = np.lib.stride_tricks.sliding_window_view(padded, (5, 6)).sum((-2, -1))[:side, :side]
    np.testing.assert_array_equal(w.grad.numpy()[0, 0], sums)


def test_padding_met_a_weight_that_is_not_finite_only_where_the_image_was_seen() -> None:
    w = np.zeros((1, 1, 3, 3), np.float32)
    w[0, 0, 0, 0] = np.inf  # over padding only: inf * 0
    assert np.isnan(ug.conv2d(ug.ones((1, 1, 1, 1)), ug.asarray(w), padding=1).item())


# Arguments


@pytest.mark.parametrize(
    "draw",
    [
        lambda g: ug.random.rand(2, generator=g), lambda g: ug.random.randn(2, generator=g),
        lambda g: ug.random.uniform(generator=g), lambda g: ug.random.normal(generator=g),
        lambda g: ug.random.randint(0, 3, generator=g), lambda g: ug.random.randperm(3, generator=g),
        lambda g: ug.random.bernoulli(0.5, generator=g), lambda g: ug.dropout(leaf(2), generator=g),
        lambda g: nn.init.uniform_(leaf(2), generator=g),
    ],
)  # fmt: skip
@pytest.mark.parametrize("generator", [0, "seed", np.random.default_rng(0)])
def test_wrong_generator_raised_an_attribute_error(draw: Callable[[Any], object], generator: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^\w+: generator=.*expected an ulpgrad.random.Generator"):
        draw(generator)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ug.random.randint(0.5, 3), ArgumentError, "randint: low=0.5, high=3: expected whole"),  # type: ignore[arg-type]
        (lambda: ug.random.uniform("a"), ArgumentError, "uniform: low='a'"),  # type: ignore[arg-type]
        (lambda: ug.random.normal(0, None), ArgumentError, "normal: mean=0, std=None"),  # type: ignore[arg-type]
        (lambda: ug.random.bernoulli("a"), ArgumentError, "bernoulli: p='a'"),
        (lambda: ug.random.rand(2**62), ShapeError, "rand: no array can hold"),
        (lambda: ug.arange(2**62), ShapeError, "arange: no array can hold"),
        (lambda: ug.arange(0, 1, 1e-320), ShapeError, "arange: no array can hold"),
        (lambda: ug.arange(2**200), FormatError, "arange: numbers from 0 to .* do not fit int64"),
        (lambda: ug.arange(0.5, 10**400), ArgumentError, "arange: start, stop and step"),
        (lambda: ug.linspace(0, 1, 2**62), ShapeError, "linspace: no array can hold"),
        (lambda: ug.linspace("a", 1, 5), ArgumentError, "linspace: start and stop must be numbers"),  # type: ignore[arg-type]
        (lambda: ug.repeat(leaf(3), 2**62), ShapeError, "repeat: no array can hold"),
        (lambda: ug.repeat(leaf(3), 2**63), ShapeError, "repeat: no array can hold"),
        (lambda: ug.repeat(leaf(2), [1, [2]]), ArgumentError, "repeat: repeats must be integers"),  # type: ignore[arg-type]
        (lambda: ug.tile(leaf(2**10), (2**58,)), ShapeError, "tile: no array can hold"),
        (lambda: ug.eye(2**62), ShapeError, "eye: no array can hold"),
        (lambda: ug.eye(3, k=1.5), ArgumentError, "eye: k must be an integer"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_wrong_arguments_raised_errors_of_python_or_numpy(
    call: Callable[[], object], error: type[UlpgradError], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_range_beyond_int64_could_not_be_made_in_uint64() -> None:
    assert ug.arange(2**63, 2**63 + 6, 3, dtype=ug.uint64).tolist() == [2**63, 2**63 + 3]
    assert ug.arange(2**63 - 1, -(2**63), -(2**63)).tolist() == [2**63 - 1, -1]


# Gradients of gradients


def test_constant_gradient_was_refused_without_saying_why() -> None:
    x, w = leaf(1, 1, 4, 4), leaf(2)
    g = ug.grad(ug.avg_pool2d(x, 2).sum(), x, create_graph=True)
    with pytest.raises(GradientError, match="linear in its inputs, even with create_graph=True"):
        (g * g).sum().backward()
    ((g * g).sum() + w.sum()).backward()
    assert w.grad is not None
    assert w.grad.tolist() == [1.0, 1.0]


# Threads


def test_autocast_as_a_decorator_was_shared_by_its_callers() -> None:
    inside, done = threading.Barrier(2, timeout=10), []

    @ug.autocast(ug.bfloat16)
    def product(first: bool) -> None:
        inside.wait()  # both threads are in
        if first:
            done.append((leaf(2, 2) @ leaf(2, 2)).dtype)
        inside.wait()

    threads = [threading.Thread(target=product, args=(first,)) for first in (True, False)]
    failures: list[Any] = []
    before, threading.excepthook = threading.excepthook, failures.append
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = before
    assert done == [ug.bfloat16]
    assert not failures


def test_second_derivative_through_an_output_that_a_function_saved() -> None:
    """A saved output used to come back as a constant, which cut the second derivative."""

    class Exp(ug.Function):
        @staticmethod
        def forward(ctx: Any, x: ug.Tensor) -> ug.Tensor:
            y = ug.exp(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx: Any, g: ug.Tensor) -> ug.Tensor:
            (y,) = ctx.saved_tensors
            return g * y

    x = ug.asarray([0.5, 1.0], dtype=ug.float64, requires_grad=True)
    assert ug.testing.gradcheck(Exp.apply, [x], order=2)


@pytest.mark.parametrize("shape", [(300, 260), (2, 70, 1000), (1000, 70)])
@pytest.mark.parametrize("k", [-400, -64, -5, 0, 1, 63, 200, 2000])
def test_triangles_of_large_matrices(shape: tuple[int, ...], k: int) -> None:
    """Large matrices are cut in blocks of rows, without a mask of their own size; what is outside is 0 even where it was NaN."""
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    x[..., 0, 1] = x[..., 1, 0] = np.nan
    for _ in range(3):  # the third is remembered
        np.testing.assert_array_equal(ug.tril(ug.asarray(x), k=k).numpy(), np.tril(x, k))
        np.testing.assert_array_equal(ug.triu(ug.asarray(x), k=k).numpy(), np.triu(x, k))
    leaf = ug.zeros(shape, requires_grad=True)
    np.testing.assert_array_equal(ug.grad(ug.tril(leaf, k=k).sum(), leaf).numpy(), np.tril(np.ones(shape), k))


def test_a_triangle_of_a_view_that_no_memory_could_hold_is_refused_at_once() -> None:
    wide = ug.broadcast_to(ug.ones((1, 1)), (2**29, 2**29))
    for triangle in (ug.tril, ug.triu):
        with pytest.raises(MemoryError):
            triangle(wide)


def test_triangles_say_what_they_cannot_take() -> None:
    """A tensor in blocks was looked for on a GPU, and half a diagonal had an error of Python's in large matrices only."""
    for triangle in (ug.tril, ug.triu):
        with pytest.raises(FormatError, match="scales along an axis"):
            triangle(ug.ones((4, 32)).to("mxfp8_e4m3"))
        for size in (4, 400):
            with pytest.raises(ArgumentError, match=r"k=1\.5: expected the number of a diagonal"):
                triangle(ug.ones((size, size)), k=1.5)
