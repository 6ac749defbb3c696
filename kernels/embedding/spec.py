"""Embedding: rows of a table, chosen by index. Its gradient adds each row of g to the row it came from, in index order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ulpgrad.errors import ArgumentError, FormatError, ShapeError
from ulpgrad.formats import ALL, Array, Format, float32, float64
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.spec import Op, Sample


def validate(name: str, indices: Array, rows: int) -> None:
    """ArgumentError unless every index is a row."""
    if indices.size and (indices.min() < 0 or indices.max() >= rows):
        bad = indices[(indices < 0) | (indices >= rows)].flat[0]
        raise ArgumentError(f"{name}: index {int(bad)} is not a row: expected 0 to {rows - 1}")


def floats(request: Request) -> str | None:
    """Predicate of rungs that add floats only."""
    form = request.formats[0]
    return None if form is not None and form.kind == "float" else "adds floats only"


def embedding_reference(weight: Array, indices: Array) -> Array:
    validate("embedding", indices, weight.shape[0])
    return weight[indices.astype(np.int64)]


def embedding_gradient_reference(g: Array, indices: Array, *, rows: int) -> Array:
    validate("embedding_gradient", indices, rows)
    out = np.zeros((rows, g.shape[-1]), g.dtype)
    np.add.at(out, indices.reshape(-1).astype(np.int64), g.reshape(indices.size, g.shape[-1]))
    return out


def _check(weight: Array, indices: Array) -> None:
    if weight.ndim != 2:
        raise ShapeError(f"embedding: expected weight of shape (rows, width), got {tuple(weight.shape)}")


def _check_gradient(g: Array, indices: Array, *, rows: int) -> None:
    if g.ndim == 0 or tuple(g.shape[:-1]) != tuple(indices.shape):
        raise ShapeError(
            f"embedding_gradient: g has shape {tuple(g.shape)}: expected {tuple(indices.shape)} and a width"
        )


def _result(name: str) -> Any:
    def result(values: Format, indices: Format, **_: Any) -> Format:
        if indices.kind != "integer":
            raise FormatError(f"{name}: indices are {indices.name}: expected integers")
        return values

    return result


def _inputs() -> Iterator[tuple[int, int, Array]]:
    rng = np.random.default_rng(0)
    for rows, width, shape in (
        (5, 3, (4,)),
        (7, 1, (2, 3)),
        (1, 4, (6,)),
        (4, 9, ()),
        (3, 2, (0,)),
        (50, 33, (400,)),
        (6, 0, (3,)),
    ):
        yield rows, width, rng.integers(0, rows, shape)  # fmt: skip
    yield 9, 5, rng.integers(0, 9, (3, 4)).astype(np.int32)
    yield 9, 5, rng.integers(0, 9, 12).astype(np.uint8)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(1)
    for rows, width, indices in _inputs():
        yield Sample(
            (rng.standard_normal((rows, width)), indices), name=f"{rows}x{width} {indices.dtype}{indices.shape}"
        )


def _gradient_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(1)
    for rows, width, indices in _inputs():
        g = rng.standard_normal((*indices.shape, width))
        yield Sample((g, indices), {"rows": rows}, name=f"{rows}x{width} {indices.dtype}{indices.shape}")


embedding = Op(
    "embedding",
    signature="(weight: [v, d], indices: int[...]) -> [..., d]",
    doc="weight[indices]. An index outside the table, negative ones too, raises ArgumentError.",
    reference=embedding_reference,
    check=_check,
    result=_result("embedding"),
    formats=ALL,
    promote=False,
    bytes=lambda weight, indices: 2.0 * indices.size * weight.shape[1] * weight.itemsize + indices.nbytes,
    samples=_samples,
    ulps=dict.fromkeys(ALL, 0),
)

embedding_gradient = Op(
    "embedding_gradient",
    signature="(g: [..., d], indices: int[...], *, rows) -> [rows, d]",
    doc="Sums of the rows of g by index; rows never chosen are zero.",
    reference=embedding_gradient_reference,
    check=_check_gradient,
    result=_result("embedding_gradient"),
    formats=ALL,
    promote=False,
    flops=lambda g, indices, *, rows: float(g.size),
    samples=_gradient_samples,
    ulps={float32: 128, float64: 128},  # of sum |g|, where one index comes 400 times and is added up one by one
    magnitude=lambda g, indices, *, rows: embedding_gradient_reference(np.abs(g), indices, rows=rows),
)
