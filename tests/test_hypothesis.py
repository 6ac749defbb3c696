"""Properties of shapes, indices, formats and einsum, against NumPy on whatever hypothesis thinks of."""

from __future__ import annotations

import math
from typing import Any

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

import ulpgrad as ug
from ulpgrad.errors import UlpgradError
from ulpgrad.formats import ALL, FLOATS, Format

settings.register_profile("quick", max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("quick")

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
NOT_EMPTY = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
FORMS = st.sampled_from(list(ALL))


def counted(shape: tuple[int, ...]) -> np.ndarray:
    """A different value everywhere, so that any misplacement shows."""
    return np.arange(math.prod(shape), dtype=np.float64).reshape(shape)


def same(got: ug.Tensor, want: Any) -> None:
    np.testing.assert_array_equal(got.detach().numpy(), want)
    assert got.shape == np.shape(want)


@st.composite
def laid_out(draw: st.DrawFn, shape: tuple[int, ...]) -> np.ndarray:
    """`counted` values in some memory order: transposed, reversed, with gaps."""
    order = draw(st.permutations(range(len(shape))))
    stored = tuple(shape[i] * (2 if draw(st.booleans()) else 1) for i in order)
    x = counted(stored).transpose(np.argsort(order))
    x = x[(..., *(slice(None, None, n // s if s else 1) for n, s in zip(x.shape, shape, strict=True)))]
    return np.flip(x, draw(st.integers(0, len(shape) - 1))) if shape and draw(st.booleans()) else x


@st.composite
def basic_index(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    return draw(hnp.basic_indices(shape, allow_newaxis=True))


@st.composite
def mixed_index(draw: st.DrawFn, shape: tuple[int, ...]) -> Any:
    """Integer arrays, masks, integers, slices, None and one Ellipsis in any mixture."""
    items: list[Any] = []
    broadcast = draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    axis = 0
    while axis < len(shape) and draw(st.integers(0, 5)):
        n = shape[axis]
        kind = draw(st.sampled_from(["array", "array", "slice", "int", "mask", "none"]))
        if kind == "none":
            items.append(None)
            continue
        if n == 0 or kind == "slice":
            items.append(draw(st.slices(n)))
        elif kind == "int":
            items.append(draw(st.integers(-n, n - 1)))
        elif kind == "array":
            dtype = draw(st.sampled_from([np.int64, np.int32, np.int8]))
            items.append(draw(hnp.arrays(dtype, broadcast, elements=st.integers(-n, n - 1))))
        else:
            items.append(draw(hnp.arrays(np.bool_, (n,))))
        axis += 1
    if draw(st.booleans()):
        items.insert(draw(st.integers(0, len(items))), ...)
    return tuple(items)


def spelled(index: Any, as_tensors: bool) -> Any:
    """The same index with its arrays as tensors, or as lists."""
    convert = ug.asarray if as_tensors else np.ndarray.tolist
    items = index if isinstance(index, tuple) else (index,)
    return tuple(convert(i) if isinstance(i, np.ndarray) and (as_tensors or (i.ndim and i.size)) else i for i in items)


@given(st.data(), SHAPES)
def test_basic_getitem_is_a_view(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = data.draw(laid_out(shape))
    index = data.draw(basic_index(shape))
    got = ug.asarray(x)[index]
    same(got, x[index])
    assert got.size == 0 or np.shares_memory(got.storage, x)


@given(st.data(), SHAPES, st.booleans())
def test_mixed_getitem(data: st.DataObject, shape: tuple[int, ...], as_tensors: bool) -> None:
    x = data.draw(laid_out(shape))
    index = data.draw(mixed_index(shape))
    try:
        want = x[index]
    except IndexError:
        with pytest.raises(UlpgradError):
            ug.asarray(x)[spelled(index, as_tensors)]
        return
    same(ug.asarray(x)[spelled(index, as_tensors)], want)


@given(st.data(), SHAPES)
def test_gradient_of_getitem_is_a_sum_at_the_index(data: st.DataObject, shape: tuple[int, ...]) -> None:
    index = data.draw(st.one_of(basic_index(shape), mixed_index(shape)))
    x = ug.asarray(data.draw(laid_out(shape)), requires_grad=True)
    try:
        y = x[index]
    except UlpgradError:
        return
    seed = ug.asarray(1.0 + counted(y.shape), requires_grad=True)
    (g,) = ug.grad([y], [x], [seed], create_graph=True)
    want = np.zeros(shape)
    np.add.at(want, index, seed.detach().numpy())
    same(g, want)
    (back,) = ug.grad([g], [seed], [x.detach()])
    same(back, x.detach().numpy()[index])


@given(st.data(), SHAPES, FORMS)
def test_setitem(data: st.DataObject, shape: tuple[int, ...], form: Format) -> None:
    index = data.draw(st.one_of(basic_index(shape), mixed_index(shape), hnp.arrays(np.bool_, shape)))
    want = np.zeros(shape, form.interchange)
    try:
        picked = want[index].shape
    except IndexError:
        return
    value = np.ones(data.draw(st.sampled_from([(), picked, (*picked[:-1], 1) if picked else ()])), form.interchange)
    x = ug.zeros(shape, dtype=form)
    want[index] = value
    x[spelled(index, True) if isinstance(index, tuple) else index] = value
    np.testing.assert_array_equal(x.storage, ug.asarray(want).storage)


@given(st.data(), NOT_EMPTY, hnp.array_shapes(min_dims=1, max_dims=2, max_side=4))
def test_take_and_take_along_axis(data: st.DataObject, shape: tuple[int, ...], picks: tuple[int, ...]) -> None:
    x = data.draw(laid_out(shape))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    n = shape[axis]
    positions = data.draw(hnp.arrays(np.int64, picks, elements=st.integers(-n, n - 1)))
    same(ug.take(ug.asarray(x), ug.asarray(positions), axis=axis), np.take(x, positions, axis))
    order = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-n, n - 1)))
    same(ug.take_along_axis(ug.asarray(x), ug.asarray(order), axis=axis), np.take_along_axis(x, order, axis))


@given(hnp.mutually_broadcastable_shapes(num_shapes=3, max_dims=4, max_side=4), st.data())
def test_broadcasting(shapes: Any, data: st.DataObject) -> None:
    a, b, c = (data.draw(laid_out(s)) for s in shapes.input_shapes)
    ta, tb, tc = (ug.asarray(v) for v in (a, b, c))
    same(ta + tb * tc, a + b * c)
    same(ug.where(ta > tb, tc, ta), np.where(a > b, c, a))
    for got, want in zip(ug.broadcast_arrays(ta, tb, tc), np.broadcast_arrays(a, b, c), strict=True):
        same(got, want)
    x, y = (t.detach().requires_grad_() for t in (ta, tb))
    out = x * y
    ones = np.ones(np.broadcast_shapes(a.shape, b.shape))
    gx, gy = ug.grad([out], [x, y], [ug.ones_like(out)])
    for g, other, own in ((gx, b, a), (gy, a, b)):
        full = ones * other
        extra = full.ndim - own.ndim
        axes = (*range(extra), *(i + extra for i, s in enumerate(own.shape) if s == 1))
        same(g, full.sum(axes).reshape(own.shape))


@given(SHAPES, SHAPES)
def test_shapes_that_do_not_broadcast_are_refused(s1: tuple[int, ...], s2: tuple[int, ...]) -> None:
    try:
        want: Any = np.broadcast_shapes(s1, s2)
    except ValueError:
        want = None
    try:
        got: Any = (ug.zeros(s1) + ug.zeros(s2)).shape
    except UlpgradError:
        got = None
    assert got == want


@given(FORMS, FORMS, FORMS)
def test_promotion_is_a_commutative_join(a: Format, b: Format, c: Format) -> None:
    def join(*forms: Format) -> Format | None:
        try:
            return ug.result_type(*forms)
        except UlpgradError:
            return None

    assert join(a, b) is join(b, a)
    assert join(a, a) is a
    both = join(a, b)
    if both is not None:
        assert join(a, both) is both
        if a.kind == b.kind and a.is_native and b.is_native:
            assert both.storage == np.result_type(a.storage, b.storage)
    if {f.kind for f in (a, b, c)} == {"float"} and ug.bfloat16 not in (a, b, c):
        left, right = join(a, b), join(b, c)
        assert left is not None
        assert right is not None
        assert join(left, c) is join(a, right)


@given(st.data(), SHAPES)
def test_round_trips_of_movement(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = data.draw(laid_out(shape))
    t = ug.asarray(x)
    order = data.draw(st.permutations(range(len(shape))))
    moved = ug.permute_dims(t, order)
    same(moved, x.transpose(order))
    same(ug.permute_dims(moved, np.argsort(order).tolist()), x)
    same(ug.reshape(ug.reshape(moved, (x.size,)), moved.shape), x.transpose(order))
    if shape:
        axis = data.draw(st.integers(-len(shape), len(shape) - 1))
        parts = ug.unstack(t, axis=axis)
        if parts:
            same(ug.stack(parts, axis=axis), x)
        cut = data.draw(st.integers(0, shape[axis]))
        lead = (slice(None),) * (axis % len(shape))
        same(ug.concat([t[(*lead, slice(None, cut))], t[(*lead, slice(cut, None))]], axis=axis), x)
        same(ug.flip(ug.flip(t, axis=axis), axis=axis), x)
        shift = data.draw(st.integers(-9, 9))
        same(ug.roll(ug.roll(t, shift, axis=axis), -shift, axis=axis), x)
        same(ug.moveaxis(ug.moveaxis(t, 0, axis), axis, 0), x)
        same(ug.squeeze(ug.expand_dims(t, axis=axis), axis % (len(shape) + 1) if axis >= 0 else axis), x)


@given(st.data(), NOT_EMPTY)
def test_sorting(data: st.DataObject, shape: tuple[int, ...]) -> None:
    form = data.draw(st.sampled_from(FLOATS))
    wide = data.draw(
        hnp.arrays(np.float64, shape, elements=st.sampled_from([-np.inf, -1, -0.0, 0.0, 1, 2, np.inf, np.nan]))
    )
    x = form.exact(form.encode(wide))
    t = ug.Tensor(form.encode(wide), form)
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    order = ug.argsort(t, axis=axis)
    same(order, np.argsort(x, axis, kind="stable"))
    np.testing.assert_array_equal(form.exact(ug.sort(t, axis=axis).storage), np.sort(x, axis))
    np.testing.assert_array_equal(form.exact(ug.take_along_axis(t, order, axis=axis).storage), np.sort(x, axis))
    falling = form.exact(ug.sort(t, axis=axis, descending=True).storage)
    np.testing.assert_array_equal(falling, -np.sort(-x, axis))
    k = data.draw(st.integers(0, shape[axis]))
    values, positions = ug.topk(t, k, axis=axis)
    np.testing.assert_array_equal(np.take_along_axis(x, positions.numpy(), axis), form.exact(values.storage))
    by_size = np.flip(np.sort(x, axis), axis)  # NaN first
    np.testing.assert_array_equal(form.exact(values.storage), np.take(by_size, range(k), axis))
    least, _ = ug.topk(t, k, axis=axis, largest=False, sorted=False)
    np.testing.assert_array_equal(np.sort(form.exact(least.storage), axis), np.take(np.sort(x, axis), range(k), axis))


@st.composite
def equations(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """An einsum equation over letters with sizes, with repeated letters, `...` and an explicit or implicit result."""
    sizes = {c: draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, 3)) for c in "abcde"}
    stars = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, shapes, dotted = [], [], False
    for _ in range(draw(st.integers(1, 3))):
        letters = "".join(draw(st.lists(st.sampled_from("abcde"), max_size=4)))
        shape = [sizes[c] for c in letters]
        if draw(st.integers(0, 3)) == 0:
            at = draw(st.integers(0, len(letters)))
            own = stars[draw(st.integers(0, len(stars))) :]
            shape[at:at] = [1 if draw(st.booleans()) else s for s in own]
            letters = f"{letters[:at]}...{letters[at:]}"
            dotted = True
        terms.append(letters)
        shapes.append(tuple(shape))
    equation = ",".join(terms)
    if draw(st.booleans()):
        found = sorted(set("".join(terms)) - {"."})
        kept = draw(st.permutations(found))[: draw(st.integers(0, len(found)))]
        equation += "->" + ("..." if dotted else "") + "".join(kept)
    return equation, shapes


@given(equations(), st.data())
def test_einsum(case: tuple[str, list[tuple[int, ...]]], data: st.DataObject) -> None:
    equation, shapes = case
    arrays = [data.draw(laid_out(s)) % 7 - 3 for s in shapes]
    want = np.einsum(equation, *arrays)
    same(ug.einsum(equation, *map(ug.asarray, arrays)), want)


@given(st.data(), SHAPES, FORMS, FORMS)
def test_conversion_there_and_back(data: st.DataObject, shape: tuple[int, ...], a: Format, b: Format) -> None:
    small = data.draw(hnp.arrays(np.int8, shape, elements=st.integers(0, 1)))
    x = ug.Tensor(a.encode(small.astype(np.float64)), a)
    assert x.astype(b).astype(a).tolist() == x.tolist()
    np.testing.assert_array_equal(ug.asarray(x.numpy()).storage, x.storage)
    assert ug.asarray(x.numpy()).dtype is a


@given(st.data(), NOT_EMPTY)
def test_reductions_by_axis_equal_reductions_of_a_reshape(data: st.DataObject, shape: tuple[int, ...]) -> None:
    x = data.draw(laid_out(shape)) % 5 - 2
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    t = ug.asarray(x)
    for name in ("sum", "prod", "max", "min"):
        same(getattr(ug, name)(t, axis=axes), getattr(np, name)(x, axis=axes))
        same(getattr(ug, name)(t, axis=axes, keepdims=True), getattr(np, name)(x, axis=axes, keepdims=True))
    for name in ("argmax", "argmin"):
        same(getattr(ug, name)(t), getattr(np, name)(x))
        same(getattr(ug, name)(t, axis=-1, keepdims=True), getattr(np, name)(x, axis=-1, keepdims=True))
