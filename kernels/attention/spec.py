"""Scaled dot-product attention and its gradient, defined by the full matrix of scores."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt
from typing import Any, NamedTuple

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import FLOATS, Array, Format, bool_, compute_format, float32, float64, int32, int64
from ulpgrad.formats.promotion import result_format
from ulpgrad.kernels.attention.visible import Window, both_lengths, check_lengths, is_decoding, only, pairs, visible
from ulpgrad.kernels.random import philox, spec as random_spec
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample

LARGEST_HEAD = 256  # features that blocks of a GPU hold
USUAL_HEADS = (64, 128)  # features of heads that one rung of a GPU is made for
INTEGERS = (int32, int64)  # formats of lengths


class Dropout(NamedTuple):
    """Which weights are dropped: those that the op `dropout` drops from all of them, [..., l, s], with these parameters."""

    p: float
    key: int
    counter: int


LEAST_WEIGHT = 2.0**-100  # weights far below this are subnormal in float32, or flushed to zero


def shared(a: Array, q: Array) -> Array:
    """Keys or values with a head for each of q's: where there are fewer, each serves as many heads of queries in a row."""
    return a if a.shape[:-2] == q.shape[:-2] else np.repeat(a, q.shape[-3] // a.shape[-3], axis=-3)


def gathered(gradient: Array, a: Array) -> Array:
    """The gradient of keys or values from that of `shared`: the sum over the heads of queries that one serves."""
    if gradient.shape == a.shape:
        return gradient
    total: Array = gradient.reshape(*a.shape[:-2], -1, *a.shape[-2:]).sum(axis=-3)
    return total


def plain_only(request: Request) -> str | None:
    """Why a rung without windows and lengths does not take a call, or None."""
    if request.params.get("window") is not None:
        return "knows no window"
    return "knows no other place of queries than the first" if request.params.get("lower_right") else None


def unwindowed(request: Request) -> str | None:
    """Why a rung without windows does not take a call, or None."""
    return None if request.params.get("window") is None else "knows no window"


def undropped(request: Request) -> str | None:
    """Why a rung without dropout does not take a call, or None."""
    return None if request.params.get("dropout") is None else "knows no dropout"


def scores(q: Array, k: Array, mask: Array | None, seen: Array | None, scale: float) -> Array:
    """How much each query wants each key: [..., l, s], minus infinity where it may not attend."""
    out: Array = q @ k.swapaxes(-1, -2) * q.dtype.type(scale)
    if seen is not None:
        out = np.where(seen, out, -np.inf)
    if mask is not None:
        out = np.where(mask, out, -np.inf) if mask.dtype == bool else out + mask
    return out


def softmax(s: Array) -> tuple[Array, Array]:
    """(weights, lse) of each row: weights sum to 1, or are all 0 where every score is minus infinity."""
    largest = s.max(axis=-1, keepdims=True, initial=-np.inf)
    e = np.exp(s - np.where(largest == -np.inf, 0, largest))
    total = e.sum(axis=-1, keepdims=True)
    return e / np.where(total == 0, 1, total), (largest + np.log(total))[..., 0]


def weights_again(s: Array, lse: Array) -> Array:
    """The weights from the scores and the lse that the forward pass kept."""
    return np.exp(s - np.where(lse == -np.inf, np.inf, lse)[..., None])


def dropped(weights: Array, dropout: Dropout | None) -> Array:
    """What is left of weights, or of a gradient of them: kept values are divided by their share, others are zero."""
    if dropout is None:
        return weights
    kept = philox.kept(weights.shape, *dropout)
    out: Array = np.where(kept, weights * weights.dtype.type(random_spec.scale(dropout.p)), weights.dtype.type(0))
    return out


def _attention(
    q: Array, k: Array, v: Array, mask: Array | None, query_lengths: Array | None = None, key_lengths: Array | None = None,
    *, is_causal: bool, scale: float, window: Window = None, lower_right: bool = False,
    dropout: Dropout | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    lengths = both_lengths("attention", q, k, query_lengths, key_lengths)
    q, k, v = only(q, lengths[0]), only(k, lengths[1]), only(v, lengths[1])
    seen = visible(q, k, *lengths, is_causal=is_causal, window=window, lower_right=lower_right)
    weights, lse = softmax(scores(q, shared(k, q), mask, seen, scale))
    return dropped(weights, dropout) @ shared(v, q), lse


def _attention_gradient(
    g: Array, q: Array, k: Array, v: Array, mask: Array | None, y: Array, lse: Array, query_lengths: Array | None = None,
    key_lengths: Array | None = None, *, is_causal: bool, scale: float, window: Window = None, lower_right: bool = False,
    dropout: Dropout | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    lengths = both_lengths("attention_gradient", q, k, query_lengths, key_lengths)
    seen = visible(q, k, *lengths, is_causal=is_causal, window=window, lower_right=lower_right)
    g, q, y = (only(a, lengths[0]) for a in (g, q, y))
    k, v = only(k, lengths[1]), only(v, lengths[1])
    every_k, every_v = shared(k, q), shared(v, q)
    weights = weights_again(scores(q, every_k, mask, seen, scale), lse)
    wanted = weights * (dropped(g @ every_v.swapaxes(-1, -2), dropout) - (g * y).sum(axis=-1, keepdims=True)) * scale
    used = dropped(weights, dropout)
    return wanted @ every_k, gathered(wanted.swapaxes(-1, -2) @ q, k), gathered(used.swapaxes(-1, -2) @ g, v)


def _conditioning(q: Array, k: Array, mask: Array | None, scale: float) -> Array:
    """By how much a relative error of 1 in the terms of a score moves its exponential: [..., l, 1]."""
    size = np.abs(q) @ np.abs(k).swapaxes(-1, -2) * abs(scale)
    if mask is not None and mask.dtype != bool:
        size = size + np.where(np.isfinite(mask), np.abs(mask), 0)
    return np.asarray(1 + size.max(axis=-1, keepdims=True, initial=0))


def _magnitude(
    q: Array, k: Array, v: Array, mask: Array | None, query_lengths: Array | None = None, key_lengths: Array | None = None,
    *, is_causal: bool, scale: float, window: Window = None, lower_right: bool = False,
    dropout: Dropout | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    seen = visible(q, k, query_lengths, key_lengths, is_causal=is_causal, window=window, lower_right=lower_right)
    q, k, v = only(q, query_lengths), shared(only(k, key_lengths), q), shared(only(v, key_lengths), q)
    weights, lse = softmax(scores(q, k, mask, seen, scale))
    size = _conditioning(q, k, mask, scale)
    sizes = np.maximum(np.abs(np.where(np.isfinite(lse), lse, 0)), size[..., 0])
    return dropped(weights, dropout) @ np.abs(v) * size, sizes


def _gradient_magnitude(
    g: Array, q: Array, k: Array, v: Array, mask: Array | None, y: Array, lse: Array, query_lengths: Array | None = None,
    key_lengths: Array | None = None, *, is_causal: bool, scale: float, window: Window = None, lower_right: bool = False,
    dropout: Dropout | None = None,
) -> tuple[Array, Array, Array]:  # fmt: skip
    seen = visible(q, k, query_lengths, key_lengths, is_causal=is_causal, window=window, lower_right=lower_right)
    q, every_k, every_v = only(q, query_lengths), shared(only(k, key_lengths), q), shared(only(v, key_lengths), q)
    size = _conditioning(q, every_k, mask, scale)
    weights = np.maximum(weights_again(scores(q, every_k, mask, seen, scale), lse) * size, LEAST_WEIGHT)
    g, q, every_k, every_v, y = (np.abs(a) for a in (g, q, every_k, every_v, y))
    change = dropped(g @ every_v.swapaxes(-1, -2), dropout) + (g * y).sum(axis=-1, keepdims=True)
    wanted, used = weights * change * abs(scale), dropped(weights, dropout)
    return wanted @ every_k, gathered(wanted.swapaxes(-1, -2) @ q, k), gathered(used.swapaxes(-1, -2) @ g, v)


def _shares(a: Array, q: Array) -> bool:
    """Whether `a` has fewer heads than q, each for the same number of q's."""
    return a.ndim == q.ndim > 2 and a.shape[:-3] == q.shape[:-3] and a.shape[-3] > 0 and q.shape[-3] % a.shape[-3] == 0


def _check(op: str, q: Array, k: Array, v: Array, mask: Array | None) -> None:
    for name, a in (("q", q), ("k", k), ("v", v)):
        if a.ndim < 2:
            raise ShapeError(f"{op}: {name} has shape {a.shape}: expected [..., length, features]")
        if a.shape[:-2] != q.shape[:-2] and not _shares(a, q):
            raise ShapeError(
                f"{op}: leading axes differ: q {q.shape}, {name} {a.shape}: {q.shape[:-2]} != {a.shape[:-2]}; "
                "broadcast them to one shape"
            )
    if k.shape[:-2] != v.shape[:-2]:
        raise ShapeError(f"{op}: leading axes differ: k {k.shape}, v {v.shape}: {k.shape[:-2]} != {v.shape[:-2]}")
    if q.shape[-1] != k.shape[-1]:
        raise ShapeError(f"{op}: features (axis -1) differ: q {q.shape}, k {k.shape}: {q.shape[-1]} != {k.shape[-1]}")
    if k.shape[-2] != v.shape[-2]:
        raise ShapeError(f"{op}: lengths (axis -2) differ: k {k.shape}, v {v.shape}: {k.shape[-2]} != {v.shape[-2]}")
    if mask is not None:
        wanted = (*q.shape[:-1], k.shape[-2])
        try:
            fits = np.broadcast_shapes(mask.shape, wanted) == wanted
        except ValueError:
            fits = False
        if not fits:
            raise ShapeError(f"{op}: mask {mask.shape} does not broadcast to the scores {wanted} of q and k")


def _check_window(op: str, window: Window) -> None:
    if window is not None and not (len(window) == 2 and all(isinstance(side, int) and side >= -1 for side in window)):
        raise ArgumentError(
            f"{op}: window={window!r}: expected how many keys are seen to the left and to the right; -1 is all"
        )


def _check_dropout(op: str, dropout: Dropout | None) -> None:
    if dropout is None:
        return
    p, key, counter = dropout
    random_spec.check_stream(op, key, counter)
    if not 0 <= p < 1:
        raise ArgumentError(f"{op}: dropout of p={p!r}: expected a probability of at least 0 and below 1")


def _check_attention(
    q: Array, k: Array, v: Array, mask: Array | None, query_lengths: Array | None = None, key_lengths: Array | None = None,
    *, is_causal: bool, scale: float, window: Window = None, lower_right: bool = False,
    dropout: Dropout | None = None,
) -> None:  # fmt: skip
    _check("attention", q, k, v, mask)
    _check_window("attention", window)
    _check_dropout("attention", dropout)
    check_lengths("attention", q, query_lengths=query_lengths, key_lengths=key_lengths)


def _check_gradient(
    g: Array, q: Array, k: Array, v: Array, mask: Array | None, y: Array, lse: Array, query_lengths: Array | None = None,
    key_lengths: Array | None = None, *, is_causal: bool, scale: float, window: Window = None, lower_right: bool = False,
    dropout: Dropout | None = None,
) -> None:  # fmt: skip
    op = "attention_gradient"
    _check(op, q, k, v, mask)
    _check_window(op, window)
    _check_dropout(op, dropout)
    check_lengths(op, q, query_lengths=query_lengths, key_lengths=key_lengths)
    for name, a, wanted in (("g", g, (*q.shape[:-1], v.shape[-1])), ("y", y, (*q.shape[:-1], v.shape[-1])),
                            ("lse", lse, q.shape[:-1])):  # fmt: skip
        if a.shape != wanted:
            raise ShapeError(f"{op}: {name} has shape {a.shape}: q {q.shape} and v {v.shape} give {wanted}")


def _floats(op: str, **formats: Format) -> Format:
    for name, f in formats.items():
        if not f.is_floating:
            raise FormatError(f"{op}: {name} is {f.name}: expected a float; only mask may be bool")
    return result_format(*formats.values())


def _integers(op: str, mask: Format | None, **lengths: Format | None) -> None:
    if mask is not None and mask.kind == "integer":
        raise FormatError(f"{op}: mask is {mask.name}: expected bool, or a float that is added")
    for name, f in lengths.items():
        if f is not None and f.kind != "integer":
            raise FormatError(f"{op}: {name} are {f.name}: expected int32 or int64")


def _attention_result(
    q: Format, k: Format, v: Format, mask: Format | None, query_lengths: Format | None = None,
    key_lengths: Format | None = None, **__: Any,
) -> tuple[Format, Format]:  # fmt: skip
    y = _floats("attention", q=q, k=k, v=v)
    _integers("attention", mask, query_lengths=query_lengths, key_lengths=key_lengths)
    return y, compute_format(y)


def _gradient_result(
    g: Format, q: Format, k: Format, v: Format, mask: Format | None, y: Format, lse: Format,
    query_lengths: Format | None = None, key_lengths: Format | None = None, **__: Any,
) -> tuple[Format, Format, Format]:  # fmt: skip
    form = _floats("attention_gradient", g=g, q=q, k=k, v=v, y=y)
    _floats("attention_gradient", lse=lse)
    _integers("attention_gradient", mask, query_lengths=query_lengths, key_lengths=key_lengths)
    return form, form, form


#       leading l    s    d   e    mask      causal  what it is
CASES = (
    ((1, 2), 5, 5, 4, 4, None, False, "small"),
    ((2, 3), 7, 7, 8, 8, None, True, "causal"),
    ((2,), 3, 9, 5, 6, None, False, "more keys, other values"),
    ((2,), 3, 9, 5, 6, None, True, "causal, more keys"),
    ((2,), 9, 3, 5, 6, None, True, "causal, more queries"),
    ((), 6, 4, 3, 2, None, False, "no leading axes"),
    ((2, 3), 6, 7, 4, 4, (6, 7), False, "bool mask"),
    ((2, 3), 6, 7, 4, 4, (2, 1, 1, 7), False, "bool mask of keys"),
    ((2, 3), 6, 7, 4, 4, (3, 6, 1), True, "bool mask of queries, causal"),
    ((1, 2), 70, 200, 24, 17, (2, 70, 200), False, "several blocks, bool mask"),
    ((1, 2), 131, 131, 64, 64, None, True, "several blocks, causal"),
    ((1, 1), 300, 290, 20, 33, None, False, "several blocks"),
    ((1, 2), 1, 150, 40, 24, None, False, "one query"),
    ((2, 1), 3, 140, 19, 5, (140,), False, "few queries, bool mask of keys"),
    ((1, 1), 1, 1, 1, 1, None, True, "one of each"),
    ((2, 1), 4, 0, 3, 2, None, False, "no keys"),
    ((2, 1), 0, 4, 3, 2, None, False, "no queries"),
    ((0, 2), 4, 4, 3, 3, None, False, "empty batch"),
)  # fmt: skip


def _attention_samples() -> Iterator[Sample]:
    random = np.random.default_rng(0)
    for leading, length, keys, d, e, mask, is_causal, name in CASES:
        q, k, v = (random.normal(size=(*leading, *shape)) for shape in ((length, d), (keys, d), (keys, e)))
        params = {"is_causal": is_causal, "scale": 1 / sqrt(d)}
        allowed = None if mask is None else random.random(mask) < 0.6
        yield Sample((q, k, v, allowed), params, name)
        if allowed is not None:
            added = np.where(allowed, random.normal(size=allowed.shape), -np.inf).astype(np.float32)
            yield Sample((q, k, v, added), params, name.replace("bool", "float"))
    q, k, v = (random.normal(size=(1, 2, 150, 16)) * size for size in (8, 4, 30))
    yield Sample((q, k, v, None), {"is_causal": False, "scale": 1.0}, "sharp")
    yield Sample((q, k, v, np.zeros((150, 150), bool)), {"is_causal": False, "scale": 1.0}, "nothing to attend to")
    yield Sample((-q, k, v, None), {"is_causal": True, "scale": -0.5}, "negative scale")
    q, k, v = (random.normal(size=shape) for shape in ((2, 6, 75, 8), (2, 2, 80, 8), (2, 2, 80, 9)))
    seen = random.random((2, 1, 75, 80)) < 0.6
    yield Sample((q, k, v, seen), {"is_causal": False, "scale": 0.4}, "two heads of keys for six of queries")
    yield Sample((q, k[:, :1], v[:, :1], None), {"is_causal": True, "scale": 0.4}, "one head of keys, causal")
    for window, is_causal in (((9, 4), False), ((20, -1), False), ((20, -1), True), ((-1, 0), False), ((0, 0), False)):
        near: dict[str, Any] = {"is_causal": is_causal, "scale": 0.4, "window": window}
        yield Sample((q, k, v, None), near, f"window {window}" + ", causal" * is_causal)
    yield Sample((q, k, v, seen), {"is_causal": False, "scale": 0.4, "window": (30, 30)}, "window and mask")
    yield Sample((q, k[:, :, :30], v[:, :, :30], None), {"is_causal": False, "scale": 0.4, "window": (8, 8)},
                 "window, queries that see nothing")  # fmt: skip
    yield Sample((q[:, :, :2], k, v, None), {"is_causal": False, "scale": 0.4}, "two heads of keys, few queries")
    yield from _placed_samples(q, k, v, seen)
    yield from _dropout_samples(q, k, v, seen)


def _placed_samples(q: Array, k: Array, v: Array, seen: Array) -> Iterator[Sample]:
    """Of lengths, and of queries that stand behind the first keys; what lies behind a length is infinite."""
    late: dict[str, Any] = {"is_causal": True, "scale": 0.4, "lower_right": True}
    near: dict[str, Any] = {"is_causal": False, "scale": 0.4}
    queries, keys = np.array([75, 33]), np.array([41, 80], np.int32)
    behind_q, behind_k = (
        np.arange(a.shape[-2])[:, None] >= n[:, None, None, None] for a, n in ((q, queries), (k, keys))
    )
    ragged = np.where(behind_q, np.inf, q)
    k_of, v_of = np.where(behind_k, np.inf, k), np.where(behind_k, np.inf, v)
    yield Sample((q, k, v, None), late, "causal to the last key")
    yield Sample(
        (q, k[:, :, :70], v[:, :, :70], None), late, "causal to the last key, the first queries before all of them"
    )
    yield Sample((q, k_of, v_of, None, None, keys), near, "lengths of keys")
    yield Sample((ragged, k_of, v_of, None, queries, keys), {**near, "is_causal": True}, "lengths, causal")
    yield Sample((ragged, k_of, v_of, seen, queries, keys), late, "lengths, causal to the last key, bool mask")
    yield Sample(
        (ragged, k, v, None, queries, None), {**late, "window": (9, 4)}, "lengths of queries, window at the last key"
    )
    yield Sample((q[:, :, :1], k_of, v_of, None, None, keys), near, "one query, lengths")
    yield Sample((q[:, :, :2], k_of, v_of, None, None, keys), late, "few queries at the last key, lengths")
    yield Sample((q, k, v, None, np.array([0, 3]), np.array([5, 0])), late, "lengths of zero")
    dropping = Dropout(0.3, 7, 2**64 - 700)
    yield Sample(
        (ragged, k_of, v_of, None, queries, keys),
        {**late, "dropout": dropping},
        "dropout, lengths, causal to the last key",
    )


def _dropout_samples(q: Array, k: Array, v: Array, seen: Array) -> Iterator[Sample]:
    """Rows of weights that begin within a block of words and with one, counters that carry, and all but none or all dropped."""
    q, k, v, seen = q[1:, :2], k[1:, :1], v[1:, :1], seen[1:]
    plain: dict[str, Any] = {"is_causal": False, "scale": 0.4}
    some = Dropout(0.3, 0x299F31D0A4093822, 2**64 - 700)
    for keys in (80, 79, 78, 77):
        yield Sample((q, k[:, :, :keys], v[:, :, :keys], None), {**plain, "dropout": some}, f"dropout, {keys} keys")
    yield Sample((q, k, v, seen), {**plain, "dropout": some}, "dropout and mask")
    yield Sample((q, k, v, None), {**plain, "is_causal": True, "dropout": some}, "dropout, causal")
    yield Sample((q, k, v, None), {**plain, "window": (9, 4), "dropout": some}, "dropout and window")
    yield Sample((q[:, :, :3], k, v, None), {**plain, "dropout": some}, "dropout, few queries")
    for p in (0.0, 1 - 2.0**-30, 1 - 2.0**-40):
        yield Sample((q, k, v, None), {**plain, "dropout": Dropout(p, 7, 2**128 - 99)}, f"dropout of {p}")
    random = np.random.default_rng(2)
    q, k, v = (random.normal(size=(1, length, 33)) for length in (139, 401, 401))
    yield Sample((q, k, v, None), {**plain, "dropout": some}, "dropout, several blocks")


def _gradient_samples() -> Iterator[Sample]:
    random = np.random.default_rng(1)
    for sample in _attention_samples():
        q, k, v, mask, *lengths = sample.arrays
        assert q is not None
        assert k is not None
        assert v is not None
        with np.errstate(all="ignore"):
            y, lse = _attention(q, k, v, mask, *lengths, **sample.params)
        g = np.asarray(random.normal(size=y.shape))
        yield Sample((g, q, k, v, mask, y, lse.astype(np.float32), *lengths), sample.params, sample.name)


def _chosen_by(
    q: Array,
    k: Array,
    v: Array,
    *,
    scale: float,
    window: Window = None,
    lower_right: bool = False,
    dropout: Dropout | None = None,
    **_: Any,
) -> tuple[bool, ...]:
    """What rungs ask about a call: whether heads are too wide for blocks, or of the sizes of models, the sign of the scale, a
    window, another place of queries, dropout, whether queries are few, and whether there are keys."""
    wide, usual = max(q.shape[-1], v.shape[-1]) > LARGEST_HEAD, q.shape[-1] == v.shape[-1] in USUAL_HEADS
    return wide, usual, scale > 0, window is None, lower_right, dropout is None, is_decoding(q, k), k.shape[-2] > 0


def _cost(q: Array, k: Array, query_lengths: Any = None, key_lengths: Any = None, **params: Any) -> float:
    near = {name: params[name] for name in ("is_causal", "window", "lower_right") if name in params}
    return 2 * pairs(q, k, query_lengths, key_lengths, **near)


attention = Op(
    "attention",
    "(q: [..., l, d], k: [..., s, d], v: [..., s, e], mask: [..., l, s] | None, query_lengths: [...] | None = None, "
    "key_lengths: [...] | None = None, *, is_causal, scale, window=None, lower_right=False, dropout=None) -> "
    "([..., l, e], lse: [..., l])",
    _attention,
    doc="softmax(q k^T * scale + mask) v, and the logarithm of each row's sum of exponentials. A bool mask says where a "
    "query attends, a float mask is added; with is_causal, query i sees keys 0 to i, with a window (left, right) "
    "keys i - left to i + right (-1: all on that side); with lower_right it stands as much further behind as there are more "
    "keys than queries. Lengths, one for each batch entry (all axes in front of heads), say how many queries and keys there are; "
    "what lies behind them is not read. Rows that attend to nothing give "
    "zeros. Leading axes are equal, but k and v may have fewer heads (axis -3), each for as many heads of q in a row; the "
    "mask's broadcast. With dropout (p, key, counter), weights are dropped before they meet v as the op dropout drops them: "
    "the weight with index i in C order of [..., l, s] where word i of the stream is below p 2^32.",
    check=_check_attention,
    result=_attention_result,
    promote=(0, 1, 2),
    formats=FLOATS.plus(bool_, int32, int64),
    key=lambda q, k, v, *_, **params: _chosen_by(q, k, v, **params),
    flops=lambda q, k, v, _, *lengths, **params: _cost(q, k, *lengths, **params) * (q.shape[-1] + v.shape[-1]),
    samples=_attention_samples,
    ulps={float32: 16, float64: 16},
    magnitude=_magnitude,
)

attention_gradient = Op(
    "attention_gradient",
    "(g: [..., l, e], q: [..., l, d], k: [..., s, d], v: [..., s, e], mask: [..., l, s] | None, y: [..., l, e], "
    "lse: [..., l], query_lengths: [...] | None = None, key_lengths: [...] | None = None, *, is_causal, scale, window=None, "
    "lower_right=False, dropout=None) -> (dq, dk, dv)",
    _attention_gradient,
    doc="The gradients of attention with respect to q, k and v, from its results y and lse.",
    check=_check_gradient,
    result=_gradient_result,
    promote=(0, 1, 2, 3, 5),
    formats=FLOATS.plus(bool_, int32, int64),
    key=lambda g, q, k, v, *_, **params: _chosen_by(q, k, v, **params),
    flops=lambda g, q, k, v, mask, y, lse, *lengths, **params: (
        _cost(q, k, *lengths, **params) * (3 * q.shape[-1] + 2 * v.shape[-1])
    ),
    samples=_gradient_samples,
    ulps={float32: 16, float64: 16},
    magnitude=_gradient_magnitude,
)

__all__ = [
    "INTEGERS",
    "Dropout",
    "attention",
    "attention_gradient",
    "dropped",
    "scores",
    "softmax",
    "weights_again",
]
