"""A convolution becomes a matrix product."""

from __future__ import annotations

import numpy as np

from ulpgrad.bench.classroom import Exercise, Mistake, Trial
from ulpgrad.formats import Array
from ulpgrad.kernels import registry


def patches(x: Array, height: int, width: int, stride: int, before: int, after: int, *, flip: bool = False) -> Array:
    """The right matrix, with padding that may differ on the two sides and filters that may be turned round."""
    padded = np.pad(x, ((0, 0), (0, 0), (before, after), (before, after)))
    view = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))[:, :, ::stride, ::stride]
    view = view[..., ::-1, ::-1] if flip else view
    return np.asarray(view.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * height * width))


def check(trial: Trial) -> None:
    conv2d = registry.find("conv2d").reference
    for (n, c, h, w), (o, kh, kw), stride, padding in (
        ((1, 1, 4, 5), (1, 2, 3), 1, 0), ((2, 3, 5, 4), (4, 3, 2), 1, 0), ((1, 2, 7, 6), (3, 3, 3), 2, 0),
        ((2, 2, 4, 4), (2, 3, 3), 1, 1), ((1, 3, 8, 5), (2, 3, 2), 3, 2), ((1, 2, 3, 3), (2, 1, 1), 1, 0),
    ):  # fmt: skip
        trial.stage(f"{n} images of {c} x {h} x {w}, filters {kh} x {kw}, stride {stride}, padding {padding}")
        x, weight = trial.rng.standard_normal((n, c, h, w)), trial.rng.standard_normal((o, c, kh, kw))
        got = trial.call("unfold", x, kh, kw, stride, padding)
        want = patches(x, kh, kw, stride, padding, padding)
        no_stride = patches(x, kh, kw, 1, padding, padding)
        if isinstance(got, np.ndarray) and got.shape != want.shape:
            out = ((h + 2 * padding - kh) // stride + 1, (w + 2 * padding - kw) // stride + 1)
            why = " The stride was left out." if got.shape == no_stride.shape else ""
            trial.wrong(
                f"The matrix has shape {got.shape}. There are {n} x {out[0]} x {out[1]} places for a filter, ((size + "
                f"2 padding - filter) // stride + 1 of them along each axis), and {c} x {kh} x {kw} values under "
                f"each: {want.shape}.{why}"
            )
        axes = want.reshape(-1, c, kh, kw)
        trial.same(got, want, what="the matrix", suspects={
            "The values are right, but their order is not that of weight.reshape(o, -1): channel first, then row, "
            "then column of the "
            "filter.": axes.transpose(0, 2, 3, 1).reshape(want.shape),
            "Filters are turned round here. That is the convolution of mathematics; networks correlate.":
                patches(x, kh, kw, stride, padding, padding, flip=True),
            "All padding went to one side: half of it belongs before, half behind.":
                patches(x, kh, kw, stride, 0, 2 * padding),
            "Rows and columns of the filter are exchanged.":
                axes.transpose(0, 1, 3, 2).reshape(want.shape),
        })  # fmt: skip
        params = {"stride": (stride, stride), "padding": (padding, padding), "dilation": (1, 1), "groups": 1}
        product = np.matmul(got, weight.reshape(o, -1).T).reshape(n, -1, o).transpose(0, 2, 1)
        wanted = conv2d(x, weight, None, **params).reshape(n, o, -1)
        trial.near(product, wanted, ulps=64, magnitude=np.full(wanted.shape, 10.0), what="the convolution")


EXERCISE = Exercise(
    rank=250,
    title="Unfold the convolution",
    teaches="A convolution is a matrix product over a matrix of patches; fast kernels never write that matrix down.",
    asks=("unfold",),
    check=check,
    forbids={"sliding_window_view": "Find the indices yourself.", "as_strided": "Find the indices yourself.",
             "unfold2d": "Find the indices yourself."},
    hints=(
        "First `np.pad` the last two axes on both sides. Then everything is indices.",
        "A loop over the kh * kw taps of the filter is enough, with slices for everything else: tap (r, s) sees "
        "padded[:, :, r : r + stride * oh : stride, s : s + stride * ow : stride].",
        "Write each into an array of shape (n, oh, ow, c, kh, kw) at [..., r, s], and reshape at the end.",
    ),
    mistakes=(
        Mistake("forgets the stride", {"(x.shape[2] + 2 * padding - height) // stride + 1": "x.shape[2] + 2 * padding "
                "- height + 1",
                "(x.shape[3] + 2 * padding - width) // stride + 1": "x.shape[3] + 2 * padding - width + 1",
                "r : r + stride * oh : stride, s : s + stride * ow : stride": "r : r + oh, s : s + ow"}, r"stride was "
                        r"left out"),
        Mistake("puts channels last", {"np.empty((n, oh, ow, c, height, width))": "np.empty((n, oh, ow, height, "
                "width, c))",
                "made[..., r, s]": "made[..., r, s, :]"}, r"channel first"),
        Mistake("pads one side", {"((0, 0), (0, 0), (padding, padding), (padding, padding))":
                "((0, 0), (0, 0), (0, 2 * padding), (0, 2 * padding))"}, r"padding went to one side"),
        Mistake("turns filters round", {"made[..., r, s]": "made[..., height - 1 - r, width - 1 - s]"}, r"networks "
                r"correlate"),
    ),
)  # fmt: skip
