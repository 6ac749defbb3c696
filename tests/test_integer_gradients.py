"""Gradients of integer convolution against sums over every window in Python's integers: types, geometries, accumulators."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.errors import AccumulatorError, FormatError, KernelError, ShapeError
from ulpgrad.formats import as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.conv.geometry import output_size
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.integer.accumulator import Accumulator, as_accumulator
from ulpgrad.kernels.integer_gradients import products, spec

OPS = (spec.integer_conv2d_input_gradient, spec.integer_conv2d_weight_gradient)
RUNGS = [(op, rung.name) for op in OPS for rung in registry.ladder(op)]
TYPES = (np.int8, np.uint8, np.int16)
#     x             weight        stride  padding dilation groups
GEOMETRIES = [
    ((2, 3, 5, 6), (4, 3, 3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((1, 4, 6, 7), (6, 2, 3, 2), (2, 3), (1, 2), (1, 2), 2),  # the last pixels of a row meet no tap
    ((2, 3, 8, 9), (2, 3, 3, 2), (2, 2), (3, 2), (3, 1), 1),
    ((2, 2, 9, 9), (3, 2, 2, 2), (3, 4), (0, 0), (1, 1), 1),  # pixels that no filter sees
    ((2, 2, 5, 5), (3, 2, 1, 1), (1, 1), (2, 1), (1, 1), 1),  # padding that nothing but zeros meets
    ((1, 3, 4, 4), (3, 1, 3, 3), (1, 1), (1, 1), (1, 1), 3),
    ((2, 2, 7, 7), (3, 2, 3, 3), (4, 2), (1, 1), (2, 4), 1),
]


def codes(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def call(op: Any, rung: str | None, *arrays: np.ndarray, **params: Any) -> np.ndarray:
    forms = tuple(as_format(a.dtype) for a in arrays)
    with dispatch.use(**({} if rung is None else {op.name: rung})):
        return np.asarray(dispatch.call(op, forms, arrays, params)[0])


def terms(
    op: Any, g: np.ndarray, other: np.ndarray, shape: tuple[int, ...], how: dict[str, Any]
) -> dict[Any, list[int]]:
    """The products of each result, in the order of the definition, by the windows of the forward convolution: one where every
    filter stands, one where every tap meets."""
    (top, left), (down, right), (tall, wide), groups = (how[k] for k in ("padding", "stride", "dilation", "groups"))
    of_weight, per = op is OPS[1], g.shape[1] // groups
    found: dict[Any, list[int]] = {}
    for index in np.ndindex(shape):
        line = []
        if of_weight:
            o, c, i, j = index
            channel = o // per * shape[1] + c
            for n, y, x in np.ndindex(g.shape[0], *g.shape[2:]):
                row, column = y * down + i * tall - top, x * right + j * wide - left
                is_inside = 0 <= row < other.shape[2] and 0 <= column < other.shape[3]
                line.append(int(g[n, o, y, x]) * int(other[n, channel, row, column]) if is_inside else 0)
        else:
            n, channel, row, column = index
            group, c = divmod(channel, other.shape[1])
            for o, i, j in np.ndindex(per, *other.shape[2:]):
                (y, off), (x, over) = divmod(row + top - i * tall, down), divmod(column + left - j * wide, right)
                is_inside = not off and not over and 0 <= y < g.shape[2] and 0 <= x < g.shape[3]
                line.append(int(g[n, group * per + o, y, x]) * int(other[group * per + o, c, i, j]) if is_inside else 0)
        found[index] = line
    return found


def summed(line: list[int], chosen: Accumulator) -> tuple[int, int | None]:
    """A sum in an accumulator, by its own scalar functions, and where it first did not fit."""
    total, failed = 0, None
    for k in range(0, len(line), chosen.chunk):
        more = chosen.rounded(sum(line[k : k + chosen.chunk]))
        if failed is None and not (chosen.fits(more) and chosen.fits(total + chosen.limited(more))):
            failed = k
        total = chosen.limited(total + chosen.limited(more))
    return total, failed


@pytest.mark.parametrize(("op", "rung"), RUNGS, ids=lambda v: v if isinstance(v, str) else v.name)
def test_every_rung(op: Any, rung: str) -> None:
    rng = np.random.default_rng(0)
    hows = (
        None,
        "int64",
        Accumulator(14, 6),
        Accumulator(20, 3, "wrap", "up", 5),
        Accumulator(30, 2, "saturate", chunk=4),
    )
    for case, (geometry, how) in enumerate(itertools.product(GEOMETRIES, hows)):
        x, weight, stride, padding, dilation, groups = geometry
        params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        g = codes(rng, TYPES[case % 3], (x[0], weight[0], *output_size(x[2:], weight[2:], stride, padding, dilation)))
        shape, second = (x, weight) if op is OPS[0] else (weight, x)
        other = codes(rng, TYPES[case * 2 % 3], second)
        if how not in (None, "int64") and rung.endswith("phases"):
            with pytest.raises(KernelError, match="sums of 32 bits that wrap, and exact ones"):
                call(op, rung, g, other, **params, size=shape[2:], accumulator=how)
            continue
        got = call(op, rung, g, other, **params, size=shape[2:], accumulator=how)
        assert got.dtype == integer.result_dtype(how)
        exact = np.empty(shape, object)
        for index, line in terms(op, g, other, shape, params).items():
            exact[index] = summed(line, as_accumulator(how))[0]
        assert (got == exact).all(), (geometry, how)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("rung", ["cpu/reference", "cpu/numpy-columns"])
def test_overflow_names_the_first_result_and_step(op: Any, rung: str) -> None:
    rng = np.random.default_rng(1)
    x, weight, stride, padding, dilation, groups = GEOMETRIES[1]
    params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    g = codes(rng, np.int16, (2, weight[0], *output_size(x[2:], weight[2:], stride, padding, dilation))) // 4
    shape, second = ((2, *x[1:]), weight) if op is OPS[0] else (weight, (2, *x[1:]))
    other = codes(rng, np.int8, second) // 8
    lines = terms(op, g, other, shape, params)
    for bits in range(30, 8, -1):  # the most that are too few, so that many results fit before one does not
        chosen = Accumulator(bits, 2, "raise", "to_odd", 2)
        failed = [(i, k) for i, line in lines.items() if (k := summed(line, chosen)[1]) is not None]
        if failed:
            break
    index, k = failed[0]
    assert list(lines).index(index) > 0
    with pytest.raises(AccumulatorError, match=op.name) as error:
        call(op, rung, g, other, **params, size=shape[2:], accumulator=chosen)
    assert (error.value.index, error.value.k) == (index, k)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_blocks_of_images_add_up(op: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns are written some images at a time; sums past 32 bits, which wrap or do not."""
    rng = np.random.default_rng(2)
    g, x, weight = (np.full(s, -(2**15), np.int16) for s in ((5, 3, 8, 8), (5, 2, 8, 8), (3, 2, 3, 3)))
    x[2:], weight[:1] = codes(rng, np.int16, (3, 2, 8, 8)), codes(rng, np.int16, (1, 2, 3, 3))
    params: dict[str, Any] = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    second, size = (weight, (8, 8)) if op is OPS[0] else (x, (3, 3))
    whole = {}
    for how in (None, "int64"):
        whole[how] = call(op, "cpu/numpy-columns", g, second, **params, size=size, accumulator=how)
        monkeypatch.setattr(products, "BLOCK", 5000)
        assert len(list(products._blocks(5, 2304))) == 3
        np.testing.assert_array_equal(
            call(op, "cpu/numpy-columns", g, second, **params, size=size, accumulator=how), whole[how]
        )
        monkeypatch.undo()
    assert (whole[None] != whole["int64"]).any()
    np.testing.assert_array_equal(whole[None], whole["int64"].astype(np.int32))


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_strided_operands(op: Any) -> None:
    rng = np.random.default_rng(3)
    params: dict[str, Any] = {"stride": (2, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    g, x, weight = (codes(rng, np.int8, s) for s in ((2, 5, 4, 6), (2, 3, 7, 6), (5, 3, 3, 3)))
    second, size = (weight, x.shape[2:]) if op is OPS[0] else (x, weight.shape[2:])
    want = op.reference(g, second, **params, size=size)
    for turn in (
        lambda a: np.ascontiguousarray(a.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        lambda a: np.ascontiguousarray(a[:, ::-1, :, ::-1])[:, ::-1, :, ::-1],
    ):
        for rung in registry.ladder(op):
            np.testing.assert_array_equal(call(op, rung.name, turn(g), turn(second), **params, size=size), want)


def test_a_stride_multiplies_nothing_by_zeros() -> None:
    """Every product of a tap and a value of g is made once, by the phases of every stride, padding and dilation."""
    for pixels, kernel, stride, padding, dilation in itertools.product(
        (1, 6, 7), (1, 2, 3, 5), (1, 2, 3), (0, 2), (1, 2, 3)
    ):
        rows = (pixels + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        if rows < 1:
            continue
        met = []
        found = products.phases(pixels, kernel, stride, padding, dilation)
        for phase in found:
            assert len(phase.taps) <= spec.taps_met(kernel, stride, dilation)
            for at, (turn, tap) in itertools.product(range(phase.pixels), enumerate(phase.taps[::-1])):
                met.append((phase.first + at * stride, tap, phase.row + at + turn * phase.apart))
        want = {(row * stride + tap * dilation - padding, tap, row) for row in range(rows) for tap in range(kernel)}
        inside = [m for m in met if 0 <= m[2] < rows]
        assert sorted(inside) == sorted(w for w in want if 0 <= w[0] < pixels)


@pytest.mark.parametrize(
    ("op", "arrays", "params", "error", "message"),
    [
        (OPS[0], (np.ones((1, 2, 4, 4), "i1"), np.ones((3, 2, 3, 3), "i1")), {"size": (4, 4)}, ShapeError, "channels"),
        (OPS[0], (np.ones((1, 3, 4, 4), "f4"), np.ones((3, 2, 3, 3), "i1")), {"size": (4, 4)}, FormatError, "g is float32"),
        (OPS[0], (np.ones((1, 3, 4, 4), "i1"), np.ones((3, 2, 3, 3), "i4")), {"size": (4, 4)}, FormatError, "weight is int32"),
        (OPS[0], (np.ones((1, 3, 4, 4), "i1"), np.ones((3, 2, 3, 3), "i1")), {"size": (6, 4)}, ShapeError, "gives"),
        (OPS[1], (np.ones((1, 3, 4, 4), "i1"), np.ones((2, 2, 4, 4), "i1")), {"size": (3, 3)}, ShapeError, "batches"),
        (OPS[1], (np.ones((1, 3, 4, 4), "i1"), np.ones((1, 2, 4, 4), "i8")), {"size": (3, 3)}, FormatError, "x is int64"),
    ],
)  # fmt: skip
def test_what_is_refused(op: Any, arrays: Any, params: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(op, None, *arrays, **params, stride=(1, 1), padding=(1, 1), dilation=(1, 1), groups=1)
