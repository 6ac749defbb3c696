"""Convolution along one and three axes and its transpose, against their definitions; gradients against differences."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.testing import gradcheck

RNG = np.random.default_rng(3)


def tensor(*shape: int) -> ug.Tensor:
    return ug.asarray(RNG.standard_normal(shape), requires_grad=True)


def reads(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    """(position, tap, pixel) for each that is not padding, over any number of axes."""
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    counts = [(s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in axes]
    for position in np.ndindex(*counts):
        for tap in np.ndindex(*kernel):
            pixel = tuple(
                o * t - p + i * d for o, t, p, i, d in zip(position, stride, padding, tap, dilation, strict=True)
            )
            if all(0 <= at < s for at, s in zip(pixel, size, strict=True)):
                yield position, tap, pixel


def convolved(x: Any, w: Any, b: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    size, kernel = x.shape[2:], w.shape[2:]
    axes = zip(size, kernel, stride, padding, dilation, strict=True)
    y = np.zeros((len(x), len(w), *((s + 2 * p - d * (k - 1) - 1) // t + 1 for s, k, t, p, d in axes)))
    for group in range(groups):
        own, given = (slice(group * n, (group + 1) * n) for n in (len(w) // groups, w.shape[1]))
        for position, tap, pixel in reads(size, kernel, stride, padding, dilation):
            y[:, own][(..., *position)] += x[:, given][(..., *pixel)] @ w[own][(..., *tap)].T
    return y + b.reshape(-1, *[1] * len(size))


def scattered(x: Any, w: Any, b: Any, size: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    """The transpose: what a convolution reads at a place is added there."""
    per, outputs = len(w) // groups, w.shape[1]
    y = np.zeros((len(x), groups * outputs, *size))
    for group in range(groups):
        given, own = slice(group * per, (group + 1) * per), slice(group * outputs, (group + 1) * outputs)
        for position, tap, pixel in reads(size, w.shape[2:], stride, padding, dilation):
            if all(at < n for at, n in zip(position, x.shape[2:], strict=True)):
                y[:, own][(..., *pixel)] += x[:, given][(..., *position)] @ w[given][(..., *tap)]
    return y + b.reshape(-1, *[1] * len(size))


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "dilation", "groups"),
    [
        ((2, 4, 11), (6, 2, 3), (2,), (2,), (2,), 2),
        ((1, 3, 7), (5, 3, 1), (1,), (0,), (1,), 1),
        ((0, 3, 7), (5, 3, 2), (1,), (1,), (1,), 1),
        ((2, 4, 5, 6, 4), (6, 2, 3, 2, 3), (2, 1, 2), (1, 0, 1), (1, 2, 1), 2),
        ((1, 3, 4, 4, 4), (2, 3, 1, 1, 1), (1, 3, 1), (0, 0, 0), (1, 1, 1), 1),
        ((2, 2, 6, 5, 4), (3, 2, 2, 3, 2), (1, 1, 1), (2, 2, 2), (2, 1, 2), 1),
    ],
)
def test_along_one_and_three_axes(x: Any, w: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> None:
    convolve = ug.conv1d if len(x) == 3 else ug.conv3d
    arrays = tensor(*x), tensor(*w), tensor(w[0])
    y = convolve(*arrays, stride, padding, dilation, groups)
    want = convolved(*(a.detach().numpy() for a in arrays), stride, padding, dilation, groups)
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-11, atol=1e-11)
    if y.size:
        gradcheck(lambda *given: convolve(*given, stride, padding, dilation, groups), list(arrays), order=2)
    with ug.use(conv2d="cpu/reference"):  # volumes as images, as in other number systems
        images = convolve(*arrays, stride, padding, dilation, groups)
    np.testing.assert_allclose(images.detach().numpy(), want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("x", "w", "stride", "padding", "behind", "dilation", "groups"),
    [
        ((2, 4, 5), (4, 3, 3), (3,), (1,), (2,), (2,), 2),
        ((1, 2, 1), (2, 3, 4), (1,), (1,), (0,), (1,), 1),
        ((2, 4, 4, 3), (4, 3, 3, 2), (2, 3), (1, 0), (1, 2), (1, 2), 2),
        ((2, 3, 3, 4), (3, 2, 4, 4), (2, 2), (1, 1), (0, 0), (1, 1), 1),
        ((2, 4, 2, 3, 2), (4, 3, 3, 2, 2), (2, 3, 1), (1, 0, 1), (1, 2, 0), (1, 2, 1), 2),
        ((1, 2, 3, 2, 2), (2, 3, 2, 2, 3), (1, 2, 2), (0, 1, 1), (0, 0, 1), (2, 1, 1), 1),
        ((1, 2, 4), (2, 3, 2), (1,), (1,), (2,), (3,), 1),  # more behind than the stride
        ((1, 2, 3, 2), (2, 2, 2, 3), (2, 1), (0, 2), (3, 2), (4, 3), 1),
    ],
)
def test_transposed(x: Any, w: Any, stride: Any, padding: Any, behind: Any, dilation: Any, groups: int) -> None:
    convolve = {3: ug.conv_transpose1d, 4: ug.conv_transpose2d, 5: ug.conv_transpose3d}[len(x)]
    arrays = tensor(*x), tensor(*w), tensor(w[1] * groups)
    y = convolve(*arrays, stride, padding, behind, groups, dilation)
    want = scattered(*(a.detach().numpy() for a in arrays), y.shape[2:], stride, padding, dilation, groups)
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-11, atol=1e-11)
    if len(x) == 4 and behind < stride:  # what makes an image of y's size from it gives one of x's size back
        assert ug.conv2d(y, arrays[1], None, stride, padding, dilation, groups).shape == x
    gradcheck(lambda *given: convolve(*given, stride, padding, behind, groups, dilation), list(arrays), order=2)
    if len(x) == 5:  # by the convolution of images, as in other number systems
        assert ug.conv3d(y, arrays[1], None, stride, padding, dilation, groups).shape == x
        with ug.use(conv2d_input_gradient="cpu/reference"):
            images = convolve(*arrays, stride, padding, behind, groups, dilation)
            np.testing.assert_allclose(images.detach().numpy(), want, rtol=1e-11, atol=1e-11)
            gradcheck(lambda *given: convolve(*given, stride, padding, behind, groups, dilation), list(arrays))


def test_same_and_valid_keep_what_they_say() -> None:
    x = tensor(1, 2, 9)
    for taps, apart in itertools.product((1, 2, 3, 4), (1, 2)):
        w = tensor(3, 2, taps)
        assert ug.conv1d(x, w, padding="same", dilation=apart).shape == (1, 3, 9)
        valid = ug.conv1d(x, w, padding="valid", dilation=apart)
        np.testing.assert_array_equal(valid.detach().numpy(), ug.conv1d(x, w, dilation=apart).detach().numpy())
    volume, w = tensor(1, 2, 3, 4, 5), tensor(3, 2, 2, 3, 4)
    for apart in (1, 2):
        around = [(apart * (k - 1) // 2, apart * (k - 1) - apart * (k - 1) // 2) for k in w.shape[2:]]
        padded = ug.asarray(np.pad(volume.detach().numpy(), [(0, 0), (0, 0), *around]))
        same, valid = ug.conv3d(volume, w, None, 1, "same", apart), ug.conv3d(padded, w, None, 1, "valid", apart)
        assert same.shape == (1, 3, 3, 4, 5)
        np.testing.assert_allclose(same.detach().numpy(), valid.detach().numpy(), rtol=1e-12, atol=1e-12)
    for call in (lambda: ug.conv1d(x, tensor(3, 2, 3), stride=2, padding="same"),
                 lambda: ug.conv3d(volume, w, stride=(2, 1, 1), padding="same")):  # fmt: skip
        with pytest.raises(ArgumentError, match="needs stride 1"):
            call()


def test_kernels_are_those_of_images() -> None:
    for call, name in ((ug.conv1d, "conv2d"), (ug.conv_transpose1d, "conv2d_input_gradient")):
        run = functools.partial(call, tensor(1, 2, 5), tensor(2, 2, 3))
        assert [op.name for op, *_ in dispatch.calls_of(run)] == [name]
    for call, name in ((ug.conv3d, "conv3d"), (ug.conv_transpose3d, "conv3d_input_gradient")):
        run = functools.partial(call, tensor(1, 2, 3, 4, 5), tensor(2, 2, 3, 3, 3))
        assert [op.name for op, *_ in dispatch.calls_of(run)] == [name]


X1, X2, X3 = (np.zeros((1, 2, *size)) for size in ((5,), (4, 4), (3, 4, 4)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ug.conv1d(X2, X1), ShapeError, r"conv1d: x has shape \(1, 2, 4, 4\): expected 3 axes"),
        (lambda: ug.conv1d(X1, X1, stride=0), ArgumentError, "conv1d: stride must be an integer of at least 1, got 0"),
        (lambda: ug.conv1d(X1, X1, padding=(1, 2)), ArgumentError, r"conv1d: padding must .* got \(1, 2\)"),
        (lambda: ug.conv3d(X3, X3, padding="all"), ArgumentError, "conv3d: padding must .* got 'all'"),
        (lambda: ug.conv3d(X3, X2), ShapeError, "conv3d: w has shape .*: expected 5 axes"),
        (lambda: ug.conv3d(X3, np.zeros((1, 2, 4, 1, 1))), ShapeError, r"a kernel that spans 4 on the padded 0 \+ 3 \+ 0"),
        (lambda: ug.conv3d(X3, np.zeros((1, 1, 2, 1, 1))), ShapeError, "channels differ"),
        (lambda: ug.conv_transpose2d(X2, np.zeros((2, 1, 3, 3)), output_padding=1), ArgumentError, "less than stride=1 or dil"),
        (lambda: ug.conv_transpose2d(X2, np.zeros((2, 1, 1, 1)), padding=2), ShapeError, "leaves nothing of x"),
        (lambda: ug.conv_transpose2d(X2, np.zeros((3, 1, 1, 1))), ShapeError, "channels"),
        (lambda: ug.conv_transpose2d(ug.asarray(X2).to("q7.8"), np.zeros((2, 1, 3, 3))), FormatError, "2d: operands in q7"),
        (lambda: ug.conv_transpose1d(X1, np.zeros((2, 3, 2)), np.zeros(2)), ShapeError, r"expected \(3,\), one value"),
    ],
)  # fmt: skip
def test_errors(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
