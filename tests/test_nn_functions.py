"""The functions of layers: values against plain NumPy, gradients of both orders against differences, errors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, AxisError, FormatError, ShapeError
from ulpgrad.testing import gradcheck

RNG = np.random.default_rng(7)


def tensor(*shape: int, scale: float = 1.0) -> ug.Tensor:
    return ug.asarray(RNG.standard_normal(shape) * scale, requires_grad=True)


def close(got: ug.Tensor, expected: Any, tolerance: float = 1e-11) -> None:
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=tolerance, atol=tolerance)


# Convolution and pooling


def direct_conv2d(
    x: Any, w: Any, bias: Any, stride: tuple[int, int], pad: Any, dilation: tuple[int, int], groups: int
) -> Any:
    """Four nested loops over outputs."""
    x = np.pad(x, ((0, 0), (0, 0), *pad))
    (n, _, height, width), (o, c, kh, kw) = x.shape, w.shape
    oh = (height - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    ow = (width - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = np.zeros((n, o, oh, ow))
    for channel in range(o):
        first = channel // (o // groups) * c
        for i in range(oh):
            for j in range(ow):
                rows = slice(i * stride[0], i * stride[0] + dilation[0] * (kh - 1) + 1, dilation[0])
                columns = slice(j * stride[1], j * stride[1] + dilation[1] * (kw - 1) + 1, dilation[1])
                out[:, channel, i, j] = (x[:, first : first + c, rows, columns] * w[channel]).sum(axis=(1, 2, 3))
    return out + bias[:, None, None]


CONVOLUTIONS = [
    ((1, 2, 5, 4), (3, 2, 3, 2), {}),
    ((2, 2, 6, 5), (2, 2, 3, 3), {"stride": 2, "padding": 1}),
    ((1, 4, 5, 6), (4, 2, 2, 3), {"stride": (1, 2), "padding": (2, 0), "groups": 2}),
    ((1, 1, 7, 6), (2, 1, 2, 3), {"dilation": (3, 2), "padding": (1, 2)}),
    ((2, 3, 4, 4), (3, 1, 3, 3), {"groups": 3, "padding": 1}),
    ((1, 2, 3, 4), (2, 2, 1, 1), {}),
]


@pytest.mark.parametrize(("x_shape", "w_shape", "options"), CONVOLUTIONS)
def test_conv2d(x_shape: tuple[int, ...], w_shape: tuple[int, ...], options: dict[str, Any]) -> None:
    x, w, b = tensor(*x_shape), tensor(*w_shape), tensor(w_shape[0])
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    pad = [(p, p) for p in pair(options.get("padding", 0))]
    expected = direct_conv2d(x.storage, w.storage, b.storage, pair(options.get("stride", 1)), pad,
                             pair(options.get("dilation", 1)), options.get("groups", 1))  # fmt: skip
    close(ug.conv2d(x, w, b, **options), expected)
    gradcheck(lambda x, w, b: ug.conv2d(x, w, b, **options), [x, w, b], order=2)


@pytest.mark.parametrize(
    ("kernel", "dilation"), [((3, 3), (1, 1)), ((2, 4), (1, 1)), ((2, 3), (3, 2)), ((1, 1), (1, 1))]
)
def test_conv2d_same_and_valid(kernel: tuple[int, int], dilation: tuple[int, int]) -> None:
    x, w = tensor(1, 2, 6, 5), tensor(2, 2, *kernel)
    needed = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    pad = [(n // 2, n - n // 2) for n in needed]
    same = ug.conv2d(x, w, padding="same", dilation=dilation)
    assert same.shape == (1, 2, 6, 5)
    close(same, direct_conv2d(x.storage, w.storage, np.zeros(2), (1, 1), pad, dilation, 1))
    gradcheck(lambda x, w: ug.conv2d(x, w, padding="same", dilation=dilation), [x, w])
    close(ug.conv2d(x, w, padding="valid"), ug.conv2d(x, w).detach().numpy())


@pytest.mark.parametrize(("kernel", "options"), [
    (2, {}), ((3, 2), {"stride": 1, "padding": 1}), (2, {"dilation": 2, "stride": (1, 2)}), (3, {"stride": 2}),
])  # fmt: skip
def test_max_pool2d(kernel: Any, options: dict[str, Any]) -> None:
    x = ug.asarray(RNG.permutation(2 * 2 * 6 * 5).reshape(2, 2, 6, 5) / 10.0, requires_grad=True)
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    (kh, kw), (dh, dw) = pair(kernel), pair(options.get("dilation", 1))
    (sh, sw), (ph, pw) = pair(options.get("stride", kernel)), pair(options.get("padding", 0))
    padded = np.pad(x.storage, ((0, 0), (0, 0), (ph, ph), (pw, pw)), constant_values=-np.inf)
    spans = (dh * (kh - 1) + 1, dw * (kw - 1) + 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(2, 3))
    close(ug.max_pool2d(x, kernel, **options), windows[:, :, ::sh, ::sw, ::dh, ::dw].max(axis=(-2, -1)))
    gradcheck(lambda x: ug.square(ug.max_pool2d(x, kernel, **options)), [x], order=2)


@pytest.mark.parametrize(("kernel", "options"), [
    (2, {}), ((3, 2), {"stride": 1, "padding": 1}), ((3, 2), {"stride": 2, "padding": 1, "count_include_pad": False}),
])  # fmt: skip
def test_avg_pool2d(kernel: Any, options: dict[str, Any]) -> None:
    x = tensor(2, 2, 5, 4)
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    (sh, sw), p = pair(options.get("stride", kernel)), options.get("padding", 0)
    include = options.get("count_include_pad", True)

    def windows(a: Any) -> Any:
        padded = np.pad(a, ((0, 0), (0, 0), (p, p), (p, p)))
        return np.lib.stride_tricks.sliding_window_view(padded, pair(kernel), axis=(2, 3))[:, :, ::sh, ::sw]

    counts = math.prod(pair(kernel)) if include else windows(np.ones(x.shape)).sum(axis=(-2, -1))
    close(ug.avg_pool2d(x, kernel, **options), windows(x.storage).sum(axis=(-2, -1)) / counts)
    gradcheck(lambda x: ug.square(ug.avg_pool2d(x, kernel, **options)), [x], order=2)


@pytest.mark.parametrize("output", [1, 3, (2, 4), (None, 3), (4, None), None, (7, 5)], ids=str)
def test_adaptive_pooling(output: Any) -> None:
    x = tensor(2, 2, 5, 6)
    rows, columns = output if isinstance(output, tuple) else (output, output)
    at = [[slice(i * s // n, -(-(i + 1) * s // n)) for i in range(n)] for s, n in ((5, rows or 5), (6, columns or 6))]
    seen = [[x.storage[:, :, r, c] for c in at[1]] for r in at[0]]
    for function, of in ((ug.adaptive_avg_pool2d, np.mean), (ug.adaptive_max_pool2d, np.max)):
        want = np.stack([np.stack([of(s, axis=(-2, -1)) for s in line], -1) for line in seen], -2)
        close(function(x, output), want)
        gradcheck(lambda x, f=function: ug.square(f(x, output)), [x], order=2)
    y, indices = ug.adaptive_max_pool2d(x, output, return_indices=True)
    assert indices.dtype is ug.int64
    close(ug.take_along_axis(x.reshape(2, 2, -1), indices.reshape(2, 2, -1), axis=2).reshape(y.shape), y.storage)


# Softmax and normalization


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_softmax(axis: int) -> None:
    x = tensor(2, 3, 4, scale=3.0)
    e = np.exp(x.storage)
    expected = e / e.sum(axis=axis, keepdims=True)
    close(ug.softmax(x, axis=axis), expected)
    close(ug.log_softmax(x, axis=axis), np.log(expected))
    gradcheck(lambda x: ug.softmax(x, axis=axis), [x], order=2)
    gradcheck(lambda x: ug.log_softmax(x, axis=axis), [x], order=2)


def normal(x: Any, axes: tuple[int, ...], eps: float = 1e-5) -> Any:
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


@pytest.mark.parametrize("shape", [(4,), (3, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_layer_norm(shape: tuple[int, ...], affine: bool) -> None:
    x = tensor(2, 3, 4)
    w, b = (tensor(*shape), tensor(*shape)) if affine else (None, None)
    expected = normal(x.storage, tuple(range(-len(shape), 0)))
    close(
        ug.layer_norm(x, shape, w, b), expected * w.storage + b.storage if w is not None and b is not None else expected
    )
    given = [t for t in (x, w, b) if t is not None]
    gradcheck(lambda x, *p: ug.layer_norm(x, shape, *p), given, order=2)


@pytest.mark.parametrize("shape", [4, (3, 4)])
def test_rms_norm(shape: Any) -> None:
    x, w = tensor(2, 3, 4), tensor(*(shape if isinstance(shape, tuple) else (shape,)))
    axes = tuple(range(-w.ndim, 0))
    size = np.sqrt((x.storage**2).mean(axes, keepdims=True) + np.finfo(np.float64).eps)
    close(ug.rms_norm(x, shape, w), x.storage / size * w.storage)
    gradcheck(lambda x, w: ug.rms_norm(x, shape, w, eps=1e-3), [x, w], order=2)
    assert ug.rms_norm(ug.zeros((2, 3), dtype=ug.bfloat16), 3).dtype is ug.bfloat16


@pytest.mark.parametrize("shape", [(5, 3), (3, 2, 4), (2, 2, 3, 2)])
def test_batch_norm_in_training(shape: tuple[int, ...]) -> None:
    x, w, b = tensor(*shape), tensor(shape[1]), tensor(shape[1])
    mean, var = ug.asarray(RNG.standard_normal(shape[1])), ug.asarray(RNG.random(shape[1]))
    axes = (0, *range(2, len(shape)))
    expected_mean = 0.7 * mean.storage + 0.3 * x.storage.mean(axes)
    expected_var = 0.7 * var.storage + 0.3 * x.storage.var(axes, ddof=1)
    wide = (-1, *(1,) * (len(shape) - 2))
    expected = normal(x.storage, axes) * w.storage.reshape(wide) + b.storage.reshape(wide)
    close(ug.batch_norm(x, mean, var, w, b, training=True, momentum=0.3), expected)
    close(mean, expected_mean)
    close(var, expected_var)
    gradcheck(lambda x, w, b: ug.batch_norm(x, None, None, w, b, training=True), [x, w, b], order=2)


def test_batch_norm_out_of_training() -> None:
    x, w, b = tensor(3, 2, 2), tensor(2), tensor(2)
    mean, var = ug.asarray(RNG.standard_normal(2)), ug.asarray(RNG.random(2))
    expected = (x.storage - mean.storage[:, None]) / np.sqrt(var.storage[:, None] + 1e-5)
    close(ug.batch_norm(x, mean, var, w, b), expected * w.storage[:, None] + b.storage[:, None])
    gradcheck(lambda x, w, b: ug.batch_norm(x, mean, var, w, b), [x, w, b], order=2)
    low = ug.batch_norm(x.detach().to(ug.bfloat16), mean.to(ug.float32), var.to(ug.float32))
    assert low.dtype is ug.bfloat16


# Embedding and dropout


def test_embedding() -> None:
    weight, indices = tensor(5, 3), ug.asarray([[1, 4], [1, 0]])
    close(ug.embedding(indices, weight), weight.storage[indices.storage])
    gradcheck(lambda w: ug.square(ug.embedding(indices, w)), [weight], order=2)


def test_dropout_keeps_its_share_and_its_mask() -> None:
    generator = ug.random.Generator(3)
    x = ug.ones((100, 100), dtype=ug.float64, requires_grad=True)
    y = ug.dropout(x, 0.3, generator=generator)
    kept = y.detach().numpy() != 0
    assert abs(kept.mean() - 0.7) < 0.02
    np.testing.assert_allclose(y.detach().numpy()[kept], 1 / 0.7)
    (gradient,) = (ug.grad(y.sum(), x),)
    np.testing.assert_array_equal(gradient.numpy(), y.detach().numpy())
    again = ug.dropout(x, 0.3, generator=ug.random.Generator(3))
    np.testing.assert_array_equal(again.detach().numpy(), y.detach().numpy())
    different = ug.dropout(x, 0.3, generator=generator)
    assert (different.detach().numpy() != y.detach().numpy()).any()
    assert ug.dropout(x, 0.3, training=False) is x
    assert ug.dropout(x, 0.0) is x
    assert not ug.dropout(x, 1.0).detach().numpy().any()
    small = tensor(3, 4)
    gradcheck(lambda x: ug.square(ug.dropout(x, 0.4, generator=ug.random.Generator(1))), [small], order=2)


# Attention


def plain_attention(q: Any, k: Any, v: Any, allowed: Any, added: Any, scale: float) -> Any:
    scores = np.where(allowed, q @ np.swapaxes(k, -1, -2) * scale + added, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - np.where(allowed.any(-1, keepdims=True), scores.max(-1, keepdims=True), 0.0))
        return np.nan_to_num(e / e.sum(-1, keepdims=True)) @ v


@pytest.mark.parametrize("kind", ["plain", "causal", "bool", "bool and causal", "float", "nothing to attend to"])
def test_scaled_dot_product_attention(kind: str) -> None:
    q, k, v = tensor(2, 1, 3, 4), tensor(2, 1, 5, 4), tensor(2, 1, 5, 2)
    allowed, added, mask = np.ones((2, 1, 3, 5), dtype=bool), np.zeros((3, 5)), None
    if "bool" in kind or "nothing" in kind:
        chosen = RNG.random((3, 5)) < 0.7
        chosen[:, 0] = True
        if "nothing" in kind:
            chosen[1] = False
        allowed, mask = allowed & chosen, ug.asarray(chosen)
    if "causal" in kind:
        allowed = allowed & np.tri(3, 5, dtype=bool)
    if kind == "float":
        added = RNG.standard_normal((3, 5))
        mask = ug.asarray(added)
    causal = "causal" in kind
    y = ug.scaled_dot_product_attention(q, k, v, mask, causal)
    close(y, plain_attention(q.storage, k.storage, v.storage, allowed, added, 0.5))
    attend: Callable[..., ug.Tensor] = lambda q, k, v: ug.scaled_dot_product_attention(q, k, v, mask, causal)  # noqa: E731
    gradcheck(attend, [q, k, v], order=2)


def test_attention_broadcasts_and_scales() -> None:
    q, k, v = tensor(2, 2, 3, 2), tensor(1, 2, 4, 2), tensor(2, 4, 3)
    allowed = np.ones((3, 4), dtype=bool)
    close(ug.scaled_dot_product_attention(q, k, v, scale=0.3),
          plain_attention(q.storage, k.storage, v.storage, allowed, 0.0, 0.3))  # fmt: skip
    gradcheck(lambda q, k, v: ug.scaled_dot_product_attention(q, k, v, scale=0.3), [q, k, v])


def test_attention_gives_a_mask_its_gradient() -> None:
    q, k, v, mask = tensor(1, 2, 3), tensor(1, 3, 3), tensor(1, 3, 2), tensor(2, 3)
    gradcheck(lambda q, k, v, m: ug.scaled_dot_product_attention(q, k, v, m), [q, k, v, mask], order=2)


# Losses


def log_softmax(x: Any, axis: int) -> Any:
    return x - np.log(np.exp(x).sum(axis=axis, keepdims=True))


def plain_cross_entropy(
    logits: Any, target: Any, weight: Any, ignore: int, smoothing: float, reduction: str, logs: Any = log_softmax
) -> Any:
    """As torch documents it, for (n, c) logits and class indices."""
    n, c = logits.shape
    p, w = logs(logits, 1), np.ones(c) if weight is None else weight
    kept = target != ignore
    t = np.where(kept, target, 0)
    losses = -w[t] * p[np.arange(n), t] * (1 - smoothing) - smoothing / c * (w * p).sum(1)
    losses = np.where(kept, losses, 0.0)
    return {"none": losses, "sum": losses.sum(), "mean": losses.sum() / w[t][kept].sum()}[reduction]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [-100, 2])
def test_cross_entropy(reduction: str, smoothing: float, weighted: bool, ignore: int) -> None:
    logits, target = tensor(6, 4, scale=2.0), np.array([0, 3, 2, 1, 2, 0])
    weight = ug.asarray(RNG.random(4) + 0.5) if weighted else None
    options: dict[str, Any] = {"ignore_index": ignore, "reduction": reduction, "label_smoothing": smoothing}
    got = ug.cross_entropy(logits, ug.asarray(target), weight, **options)
    raw = None if weight is None else weight.storage
    close(got, plain_cross_entropy(logits.storage, target, raw, ignore, smoothing, reduction))
    gradcheck(lambda x: ug.cross_entropy(x, ug.asarray(target), weight, **options), [logits], order=2)


def test_cross_entropy_of_images_single_samples_and_probabilities() -> None:
    logits, target = tensor(2, 3, 2, 2), RNG.integers(0, 3, (2, 2, 2))
    flat = np.moveaxis(logits.storage, 1, -1).reshape(-1, 3)
    expected = plain_cross_entropy(flat, target.reshape(-1), None, -100, 0.0, "none")
    close(ug.cross_entropy(logits, ug.asarray(target), reduction="none"), expected.reshape(2, 2, 2))
    gradcheck(lambda x: ug.cross_entropy(x, ug.asarray(target)), [logits], order=2)
    single = tensor(3)
    close(ug.cross_entropy(single, ug.asarray(1)), -log_softmax(single.storage, 0)[1])

    chances = ug.softmax(tensor(2, 3, 2, 2), axis=1).detach().requires_grad_()
    weight = RNG.random(3) + 0.5
    smooth = chances.storage * 0.9 + 0.1 / 3
    expected = -(smooth * weight[:, None, None] * log_softmax(logits.storage, 1)).sum(1).mean()
    close(ug.cross_entropy(logits, chances, ug.asarray(weight), label_smoothing=0.1), expected)
    gradcheck(lambda x, t: ug.cross_entropy(x, t, label_smoothing=0.1), [logits, chances], order=2)


def test_cross_entropy_where_everything_is_ignored() -> None:
    logits = tensor(2, 3)
    loss = ug.cross_entropy(logits, ug.asarray([5, 5]), ignore_index=5)
    assert math.isnan(loss.item())
    assert ug.cross_entropy(logits, ug.asarray([5, 5]), ignore_index=5, reduction="sum").item() == 0.0


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_nll_loss(reduction: str, weighted: bool) -> None:
    values, target = tensor(5, 3), np.array([0, 2, 1, 1, 2])
    weight = ug.asarray(RNG.random(3) + 0.5) if weighted else None
    raw = None if weight is None else weight.storage
    got = ug.nll_loss(values, ug.asarray(target), weight, ignore_index=1, reduction=reduction)
    close(got, plain_cross_entropy(values.storage, target, raw, 1, 0.0, reduction, logs=lambda x, _: x))
    gradcheck(
        lambda x: ug.nll_loss(ug.square(x), ug.asarray(target), weight, ignore_index=1, reduction=reduction),
        [values], order=2,
    )  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_mse_loss(reduction: str) -> None:
    x, target = tensor(3, 2), tensor(3, 2)
    squares = (x.storage - target.storage) ** 2
    close(ug.mse_loss(x, target, reduction=reduction),
          {"mean": squares.mean(), "sum": squares.sum(), "none": squares}[reduction])  # fmt: skip
    gradcheck(lambda x, t: ug.mse_loss(x, t, reduction=reduction), [x, target], order=2)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("weighted", [False, True])
def test_bce_with_logits(reduction: str, weighted: bool) -> None:
    x, target = tensor(4, 3, scale=2.0), ug.asarray(RNG.random((4, 3)))
    weight, positive = (ug.asarray(RNG.random(3) + 0.5), ug.asarray(RNG.random(3) + 0.5)) if weighted else (None, None)
    s = 1 / (1 + np.exp(-x.storage))
    p, w = (1.0, 1.0) if weight is None or positive is None else (positive.storage, weight.storage)
    losses = -w * (p * target.storage * np.log(s) + (1 - target.storage) * np.log(1 - s))
    got = ug.bce_with_logits(x, target, weight, positive, reduction)
    close(got, {"mean": losses.mean(), "sum": losses.sum(), "none": losses}[reduction])
    gradcheck(lambda x: ug.bce_with_logits(x, target, weight, positive, reduction), [x], order=2)


def test_bce_with_logits_does_not_overflow() -> None:
    losses = ug.bce_with_logits(ug.asarray([1e4, -1e4, 1e4]), ug.asarray([1.0, 0.0, 0.0]), reduction="none")
    assert losses.tolist() == [0.0, 0.0, 1e4]


@pytest.mark.parametrize("form", [ug.float32, ug.bfloat16, ug.float16])
def test_formats_are_kept(form: ug.Format) -> None:
    x = ug.asarray(RNG.standard_normal((2, 3, 4, 4))).to(form).requires_grad_()
    w = ug.asarray(RNG.standard_normal((2, 3, 3, 3))).to(form).requires_grad_()
    flat = ug.reshape(x, (6, 16))
    results = [
        ug.conv2d(x, w), ug.max_pool2d(x, 2), ug.avg_pool2d(x, 2), ug.softmax(x), ug.log_softmax(x),
        ug.layer_norm(x, 4), ug.rms_norm(x, 4), ug.batch_norm(x, None, None, training=True), ug.dropout(x),
        ug.mse_loss(x, x.detach()),
        ug.scaled_dot_product_attention(x, x, x), ug.cross_entropy(flat, ug.zeros(6, dtype=int)),
        ug.nll_loss(flat, ug.zeros(6, dtype=int)), ug.bce_with_logits(flat, ug.zeros((6, 16), dtype=form)),
    ]  # fmt: skip
    for result in results:
        assert result.dtype is form
        gradient = ug.grad(result, x, ug.ones_like(result))
        assert gradient.dtype is form
        assert gradient.shape == x.shape


# Errors

ONES = ug.ones((2, 3, 4, 5))
BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: ug.conv2d(ONES, ug.ones((2, 2, 3, 3))), ShapeError, "conv2d.*channels"),
    (lambda: ug.conv2d(ug.ones((3, 4)), ug.ones((2, 2, 3, 3))), ShapeError, "conv2d"),
    (lambda: ug.conv2d(ONES, ug.ones((2, 3, 9, 9))), ShapeError, "conv2d"),
    (lambda: ug.conv2d(ONES, ug.ones((2, 3, 3, 3)), stride=0), ArgumentError, "stride"),
    (lambda: ug.conv2d(ONES, ug.ones((2, 3, 3, 3)), padding="full"), ArgumentError, "'same', 'valid'"),
    (lambda: ug.conv2d(ONES, ug.ones((2, 3, 3, 3)), padding="same", stride=2), ArgumentError, "stride 1"),
    (lambda: ug.conv2d(ONES, ug.ones((3, 3)), padding="same"), ShapeError, "4 axes"),
    (lambda: ug.conv2d(ONES, ug.ones((2, 3, 3, 3)), ug.ones(3)), ShapeError, "bias"),
    (lambda: ug.max_pool2d(ug.ones((3, 4)), 2), ShapeError, "max_pool2d"),
    (lambda: ug.max_pool2d(ONES, 9), ShapeError, "max_pool2d"),
    (lambda: ug.avg_pool2d(ONES, (2, 2, 2)), ArgumentError, "kernel_size"),
    (lambda: ug.adaptive_avg_pool2d(ug.ones((3, 4)), 2), ShapeError, "adaptive_avg_pool2d.*4 axes"),
    (lambda: ug.adaptive_avg_pool2d(ug.ones((1, 2, 0, 4)), 2), ShapeError, "height.*no values"),
    (lambda: ug.adaptive_avg_pool2d(ONES, (2, 2, 2)), ArgumentError, "output_size.*None keeps"),
    (lambda: ug.adaptive_avg_pool2d(ONES, (0, 2)), ArgumentError, "output_size"),
    (lambda: ug.adaptive_max_pool2d(ONES, 2.5), ArgumentError, "output_size"),
    (lambda: ug.adaptive_max_pool2d(ONES.to(ug.Q(7, 8)), 2, True), FormatError, r"return_indices.*q7\.8"),
    (lambda: ug.softmax(ONES, axis=4), AxisError, "axis 4"),
    (lambda: ug.softmax(ug.asarray([1, 2])), FormatError, "int64"),
    (lambda: ug.log_softmax(ug.asarray(1.0)), AxisError, "0-d"),
    (lambda: ug.layer_norm(ONES, 4), ShapeError, r"normalized_shape \(4,\)"),
    (lambda: ug.layer_norm(ONES, (4, 5), ug.ones(5)), ShapeError, "weight"),
    (lambda: ug.rms_norm(ONES, 4), ShapeError, "normalized_shape"),
    (lambda: ug.rms_norm(ug.asarray([1]), 1), FormatError, "rms_norm"),
    (lambda: ug.batch_norm(ug.ones(3), None, None, training=True), ShapeError, "batch_norm"),
    (lambda: ug.batch_norm(ONES, ug.ones(4), ug.ones(3)), ShapeError, "running_mean"),
    (lambda: ug.batch_norm(ONES, None, None), ArgumentError, "running_mean"),
    (lambda: ug.batch_norm(ug.ones((1, 3)), None, None, training=True), ShapeError, "at least two"),
    (lambda: ug.embedding(ug.asarray([3]), ug.ones((3, 2))), ArgumentError, "index 3"),
    (lambda: ug.embedding(ug.asarray([-1]), ug.ones((3, 2))), ArgumentError, "index -1"),
    (lambda: ug.embedding(ug.asarray([0.5]), ug.ones((3, 2))), FormatError, "integers"),
    (lambda: ug.embedding(ug.asarray([0]), ug.ones(3)), ShapeError, "weight"),
    (lambda: ug.dropout(ONES, 1.5), ArgumentError, "probability"),
    (lambda: ug.scaled_dot_product_attention(ug.ones(3), ONES, ONES), ShapeError, "q has shape"),
    (lambda: ug.scaled_dot_product_attention(ONES, ug.ones((2, 3, 4, 6)), ONES), ShapeError, "attention"),
    (lambda: ug.scaled_dot_product_attention(ONES, ONES, ug.ones((2, 3, 7, 5))), ShapeError, "attention"),
    (lambda: ug.scaled_dot_product_attention(ONES, ug.ones((5, 3, 4, 5)), ONES), ShapeError, "broadcast"),
    (lambda: ug.scaled_dot_product_attention(ONES, ONES, ONES, ug.ones((3, 3))), ShapeError, "mask"),
    (lambda: ug.cross_entropy(ug.ones((2, 3)), ug.asarray([0, 3])), ArgumentError, "class"),
    (lambda: ug.cross_entropy(ug.ones((2, 3)), ug.asarray([0, -1]), ug.ones(3)), ArgumentError, "class"),
    (lambda: ug.cross_entropy(ug.ones((2, 3)), ug.asarray([0, 1, 2])), ShapeError, "target"),
    (lambda: ug.cross_entropy(ug.ones((2, 3)), ug.ones((2, 4))), ShapeError, "probabilities"),
    (lambda: ug.cross_entropy(ug.ones((2, 3)), ug.asarray([True, False])), FormatError, "bool"),
    (lambda: ug.cross_entropy(ug.ones((2, 3)), ug.asarray([0, 1]), ug.ones(4)), ShapeError, "weight"),
    (lambda: ug.cross_entropy(ug.ones((2, 3)), ug.asarray([0, 1]), reduction="max"), ArgumentError, "reduction"),
    (lambda: ug.cross_entropy(ug.asarray(1.0), ug.asarray(0)), ShapeError, "0-d"),
    (lambda: ug.nll_loss(ug.ones((2, 3)), ug.asarray([0, 3])), ArgumentError, "class"),
    (lambda: ug.mse_loss(ug.ones((2, 1)), ug.ones(2)), ShapeError, "shapes differ"),
    (lambda: ug.bce_with_logits(ug.ones((2, 1)), ug.ones(2)), ShapeError, "shapes differ"),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(BAD)))
def test_bad_arguments_are_explained(index: int) -> None:
    call, kind, words = BAD[index]
    with pytest.raises(kind, match=words):
        call()
