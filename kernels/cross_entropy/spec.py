"""Cross entropy per row: -log softmax(logits)[target], optionally smoothed, with the row's log-sum-exp kept for the gradient."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import ALL, Array, Format, compute_format, float32, float64
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample

IGNORED = -100


def validate(name: str, target: Array, classes: int, ignore_index: int | None) -> None:
    """ArgumentError unless every target is a class or `ignore_index`."""
    bad = (target < 0) | (target >= classes)
    if ignore_index is not None:
        bad &= target != ignore_index
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ArgumentError(
            f"{name}: target[{row}] is {int(target[row])}: expected a class from 0 to {classes - 1}, "
            f"or ignore_index={ignore_index}"
        )


def ignored(ignore_index: int | None) -> int:
    """`ignore_index` for loops over targets that are valid: what no class is where nothing is ignored."""
    return -1 if ignore_index is None else ignore_index


def one_format(*floats: int) -> Any:
    """Predicate of rungs that want these operands in one float format."""

    def where(request: Request) -> str | None:
        formats = {request.formats[i] for i in floats} - {None}
        return None if len(formats) == 1 else "mixes float formats"

    return where


def _weights(logits: Array, target: Array, ignore_index: int | None, label_smoothing: float) -> Array:
    """What each row's target distribution gives to each class; zero in ignored rows."""
    n, c = logits.shape
    weights = np.full((n, c), label_smoothing / max(c, 1))
    kept = target != ignored(ignore_index)
    weights[np.flatnonzero(kept), target[kept].astype(np.int64)] += 1 - label_smoothing
    weights[~kept] = 0
    return weights


def cross_entropy_reference(
    logits: Array, target: Array, *, ignore_index: int | None, label_smoothing: float
) -> tuple[Array, Array]:
    validate("cross_entropy", target, logits.shape[1], ignore_index)
    top = logits.max(axis=1, initial=-np.inf)
    lse = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    weights = _weights(logits, target, ignore_index, label_smoothing)
    parts = np.zeros_like(logits)  # where a class has no weight, even an infinite logit costs nothing
    np.multiply(weights, lse[:, None] - logits, where=weights > 0, out=parts)
    return parts.sum(axis=1), lse


def cross_entropy_gradient_reference(
    g: Array, logits: Array, target: Array, lse: Array, *, ignore_index: int | None, label_smoothing: float
) -> Array:
    validate("cross_entropy_gradient", target, logits.shape[1], ignore_index)
    weights = _weights(logits, target, ignore_index, label_smoothing)
    gradient = g[:, None] * (np.exp(logits - lse[:, None]) - weights)
    return np.where((target != ignored(ignore_index))[:, None], gradient, 0.0)


def _check(logits: Array, target: Array, *, ignore_index: int | None, label_smoothing: float) -> None:
    if logits.ndim != 2:
        raise ShapeError(f"cross_entropy: expected logits of shape (rows, classes), got {logits.shape}")
    if target.shape != logits.shape[:1]:
        raise ShapeError(
            f"cross_entropy: target has shape {target.shape}: expected {logits.shape[:1]}, one class per row"
        )
    if not 0 <= label_smoothing <= 1:
        raise ArgumentError(f"cross_entropy: label_smoothing={label_smoothing}: expected a number from 0 to 1")


def _check_gradient(
    g: Array, logits: Array, target: Array, lse: Array, *, ignore_index: int | None, label_smoothing: float
) -> None:
    _check(logits, target, ignore_index=ignore_index, label_smoothing=label_smoothing)
    for name, a in (("g", g), ("lse", lse)):
        if a.shape != target.shape:
            raise ShapeError(f"cross_entropy_gradient: {name} has shape {a.shape}: expected {target.shape}")


def _expect_formats(name: str, logits: Format | None, target: Format | None) -> Format:
    if logits is None or logits.kind != "float":
        raise FormatError(f"{name}: logits are {logits}: expected a float format")
    if target is None or target.kind != "integer":
        raise FormatError(f"{name}: targets are {target}: expected integers, one class index per row")
    return logits


def _result(logits: Format | None, target: Format | None, **_: Any) -> tuple[Format, Format]:
    form = _expect_formats("cross_entropy", logits, target)
    return form, compute_format(form)


def _gradient_result(g: Format, logits: Format, target: Format, lse: Format, **_: Any) -> Format:
    return _expect_formats("cross_entropy_gradient", logits, target)


def _inputs() -> Iterator[tuple[Array, Array, dict[str, Any]]]:
    rng = np.random.default_rng(0)
    for n, c, smoothing in (
        (3, 5, 0.0),
        (4, 10, 0.1),
        (1, 1, 0.0),
        (0, 4, 0.0),
        (5, 67, 0.25),
        (3, 1001, 0.0),
        (2, 7, 1.0),
    ):
        yield (rng.standard_normal((n, c)) * 4, rng.integers(0, c, n),
               {"ignore_index": IGNORED, "label_smoothing": smoothing})  # fmt: skip
    logits, target = rng.standard_normal((6, 9)), rng.integers(0, 9, 6)
    target[1], target[4] = 3, 3
    yield logits, target, {"ignore_index": 3, "label_smoothing": 0.1}
    target = target.astype(np.int32)
    target[2] = IGNORED
    yield logits * 1e3, target, {"ignore_index": IGNORED, "label_smoothing": 0.0}
    edges = rng.standard_normal((3, 9))
    edges[0, 2], edges[1, 4] = -np.inf, np.nan
    yield edges, np.array([1, 1, 1], dtype=np.uint8), {"ignore_index": IGNORED, "label_smoothing": 0.0}
    yield rng.standard_normal((4, 6)), np.array([0, 5, 2, 2]), {"ignore_index": None, "label_smoothing": 0.1}


def _samples() -> Iterator[Sample]:
    for logits, target, params in _inputs():
        yield Sample((logits, target), params, name=f"{logits.shape} smoothing {params['label_smoothing']}")


def _gradient_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(1)
    for logits, target, params in _inputs():
        _, lse = cross_entropy_reference(logits, target, **params)
        yield Sample((rng.standard_normal(len(target)), logits, target, lse), params, name=f"{logits.shape}")


def _magnitude(logits: Array, target: Array, **params: Any) -> tuple[Array, Array]:
    _, lse = cross_entropy_reference(logits, target, **params)
    finite = np.where(np.isfinite(logits), np.abs(logits), 0)
    size = 1 + finite.max(axis=1, initial=0) + np.where(np.isfinite(lse), np.abs(lse), 0)
    return size, size


def _gradient_magnitude(g: Array, logits: Array, target: Array, lse: Array, **params: Any) -> Array:
    """The rounding of logits - lse, each as large as they are, becomes a relative error of exp."""
    size = 1 + np.abs(logits) + np.abs(lse)[:, None]
    size = np.where(np.isfinite(size), size, 0)
    weights = _weights(logits, target, params["ignore_index"], params["label_smoothing"])
    return np.asarray(np.abs(g)[:, None] * (np.exp(logits - lse[:, None]) * size + weights))


cross_entropy = Op(
    "cross_entropy",
    signature="(logits: [n, c], target: [n], *, ignore_index, label_smoothing) -> (losses: [n], lse: [n])",
    doc="Row losses lse - logits[target], not averaged; rows of `ignore_index` (unless that is None) lose 0. Smoothing s"
    " mixes the target with s/c on every class. The log-sum-exp comes in float32 for 16-bit logits.",
    reference=cross_entropy_reference,
    check=_check,
    result=_result,
    formats=ALL,
    promote=(0,),
    flops=lambda logits, target, **_: 4 * logits.size,
    samples=_samples,
    ulps={float32: 4, float64: 4},
    magnitude=_magnitude,
)

cross_entropy_gradient = Op(
    "cross_entropy_gradient",
    signature="(g: [n], logits: [n, c], target: [n], lse: [n], *, ignore_index, label_smoothing) -> [n, c]",
    doc="g (softmax(logits) - target distribution), zero in ignored rows. Softmax is taken from the kept log-sum-exp.",
    reference=cross_entropy_gradient_reference,
    check=_check_gradient,
    result=_gradient_result,
    formats=ALL,
    promote=False,
    flops=lambda g, logits, *_, **__: 4 * logits.size,
    samples=_gradient_samples,
    ulps={float32: 4, float64: 4},
    magnitude=_gradient_magnitude,
)
