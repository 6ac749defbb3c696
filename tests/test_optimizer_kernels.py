"""A step on a list of parameters is the same, bit for bit, as a step on each; 16-bit and strided ones find their rung."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from ulpgrad.errors import ShapeError
from ulpgrad.formats import bfloat16, float32, float64
from ulpgrad.kernels import native, registry
from ulpgrad.kernels.optimizer import multi, spec
from ulpgrad.kernels.registry import Request

OPS = [registry.find(name) for name in ("sgd_step", "adam_step", "adagrad_step", "rmsprop_step")]
CASES = [pytest.param(op, sample.params, i, id=f"{op.name}-{i}") for op in OPS for i, sample in
         enumerate(s for s in op.samples() if s.arrays[0] is not None and s.arrays[0].shape == (5,))]  # fmt: skip


def group(op: Any, which: int, shape: tuple[int, ...], form: Any, seed: int) -> tuple[Any, ...]:
    """Arrays like those of the op's sample, in another shape."""
    rng = np.random.default_rng(seed)
    sample = [s for s in op.samples() if s.arrays[0].shape == (5,)][which]
    *arrays, scaling = sample.arrays
    drawn = (None if a is None else form.encode(np.asarray(rng.random(shape))) for a in arrays)
    return (*drawn, None if scaling is None else form.encode(scaling))


@pytest.mark.parametrize(("op", "params", "which"), CASES)
def test_list_is_as_one_by_one(op: Any, params: dict[str, Any], which: int) -> None:
    shapes = [(784, 50), (50,), (), (0,), (3, 40_000)]
    forms = [float32, float32, float64, float32, float32, bfloat16]
    groups = [group(op, which, s, f, i) for i, (s, f) in enumerate(zip([*shapes, (7, 3)], forms, strict=True))]
    strided = group(op, which, (9, 8), float32, 9)
    groups.append((*(None if a is None else a[:, ::2] for a in strided[:-1]), strided[-1]))
    formats = [tuple(None if a is None else f for a in g) for g, f in zip(groups, [*forms, float32], strict=True)]
    single = [tuple(None if a is None else a.copy() for a in g) for g in groups]
    multi.step(op.name, groups, formats, **params)
    for arrays, forms_of, together in zip(single, formats, groups, strict=True):
        request = Request(op, "cpu", forms_of, together, params)
        rung, _ = registry.select(request)
        (rung.run(request) if rung.build else rung.run)(*arrays, **params)
        for a, b in zip(arrays, together, strict=True):
            assert a is None or a.tobytes() == b.tobytes()


def test_wrong_shapes_are_named() -> None:
    p, g = np.zeros(3, np.float32), np.zeros(4, np.float32)
    with pytest.raises(ShapeError, match=r"g has shape \(4,\)"):
        multi.step("adagrad_step", [(p, g, p.copy(), None)], [(float32,) * 4], lr=0.1, eps=1e-8, weight_decay=0.0)
    with pytest.raises(ShapeError, match=r"scaling has shape \(\)"):
        multi.step("adagrad_step", [(p, p.copy(), p.copy(), np.ones((), np.float32))], [(float32,) * 4], lr=0.1, eps=1e-8,
                   weight_decay=0.0)  # fmt: skip


@pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
def test_native_refuses_what_would_race() -> None:
    p, s = np.zeros(3, np.float32), np.zeros(3, np.float32)
    step = native.module().adagrad_step
    scalars = {"lr": 0.1, "eps": 1e-8, "weight_decay": 0.0}
    for bad in ((p, p, s), (p, p.copy(), p), (p, s[:2].copy(), s), (p.astype(np.float64), p.copy(), s)):
        with pytest.raises((ValueError, TypeError)):
            step([(*bad, None)], **scalars)
    for scaling in (np.ones((), np.float32), np.ones(0, np.float32), np.ones(2)):
        with pytest.raises((ValueError, TypeError)):
            step([(p, p.copy(), s, scaling)], **scalars)
    read_only = p.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="write"):
        step([(read_only, p, s, None)], **scalars)


RUNGS = [(op, rung) for op in OPS for rung in registry.ladder(op) if rung.name != "cpu/reference"]
HARD = [
    0.0,
    -0.0,
    1.5e-45,
    -3e-39,
    1.1754942e-38,
    2e-38,
    1e-30,
    0.1,
    1.0,
    3.3,
    65504.0,
    2e38,
]  # subnormals of float32 among them
FACTORS = [(), (1 / 65536,), (1 / 3,), (1 / 65536, 0.1), (1 / 48.0, 1.0, 0.7)]


def state_of(op: Any, which: int, size: int, form: Any) -> list[Any]:
    """p, g and state like those of the op's sample; the gradient holds what is hard to round."""
    given = list(group(op, which, (size,), form, 5))[:-1]
    given[1] = np.resize(np.array(HARD), size).astype(form.storage) * np.where(np.arange(size) % 3, 1, -1).astype(
        form.storage
    )
    return given


def run_of(rung: Any, op: Any, form: Any, arrays: list[Any], params: dict[str, Any]) -> None:
    request = Request(op, "cpu", tuple(None if a is None else form for a in arrays), tuple(arrays), params)
    assert rung.refusal(request) is None
    (rung.run(request) if rung.build else rung.run)(*arrays, **params)


@pytest.mark.parametrize("form", [float32, float64], ids=str)
@pytest.mark.parametrize(("op", "rung"), RUNGS, ids=lambda v: v.name)
def test_factors_are_separate_passes(op: Any, rung: Any, form: Any) -> None:
    """A step that multiplies has the bits of a step on products that were made, and rounded, before it."""
    if rung.unavailable():
        pytest.skip(rung.unavailable())
    cases = [
        (s.params, i)
        for i, s in enumerate(s for s in op.samples() if s.arrays[0].shape == (5,))
        if s.arrays[-1] is None
    ]
    for params, which in cases:
        for size, factors in [(7, f) for f in FACTORS] + [(40_001, FACTORS[3])]:
            numbers = np.array((1.0, *factors), form.storage)
            apart, together = (state_of(op, which, size, form) for _ in range(2))
            for factor in numbers[1:]:
                apart[1] = apart[1] * factor
            run_of(rung, op, form, [*apart, None], params)
            run_of(rung, op, form, [*together, numbers], params)
            for i, (a, b) in enumerate(zip(apart, together, strict=True)):
                assert i == 1 or a is b is None or a.tobytes() == b.tobytes(), f"{params} {factors}: operand {i}"


@pytest.mark.parametrize(("op", "rung"), RUNGS, ids=lambda v: v.name)
def test_switched_off_writes_nothing(op: Any, rung: Any) -> None:
    if rung.unavailable():
        pytest.skip(rung.unavailable())
    for which, sample in enumerate(s for s in op.samples() if s.arrays[0].shape == (5,)):
        given = state_of(op, which, 40_001, float32)
        given[1][7:9] = np.nan, np.inf
        before = [None if a is None else a.copy() for a in given]
        run_of(rung, op, float32, [*given, np.array([0.0, 0.5], np.float32)], sample.params)
        assert all(a is b is None or a.tobytes() == b.tobytes() for a, b in zip(given, before, strict=True))


def test_squares() -> None:
    """Rungs agree bit for bit on float32, whatever factors round; a sum is finite where all products are."""
    op = registry.find("sum_of_squares")
    rungs = [r for r in registry.ladder(op) if not r.unavailable()]
    assert len(rungs) > 1
    rng = np.random.default_rng(2)
    for size in (0, 1, 15, 1024, 1025, 70_003):
        for factors in ((), (1 / 3,), (1 / 48, 0.7)):
            numbers, g = np.array((1.0, *factors), np.float32), rng.standard_normal(size).astype(np.float32)
            products = g
            for factor in numbers[1:]:
                products = products * factor
            wanted = spec.squares_reference(products)
            np.testing.assert_allclose(wanted, math.fsum(products.astype(np.float64) ** 2), rtol=1e-14)
            for rung in rungs[1:]:
                request = Request(op, "cpu", (float32, float32), (g, numbers), {})
                found = (rung.run(request) if rung.build else rung.run)(g, numbers)
                assert found.tobytes() == np.asarray(wanted).tobytes(), rung.name
            array, i = multi.squares([(g, numbers), (products, None)], [float32] * 2)[1]
            assert array[i] == wanted
    for value, factor, finite in ((3e38, 1.0, True), (3e38, 2.0, False), (np.inf, 0.5, False), (np.nan, 0.5, False)):
        g = np.ones(3000, np.float32)
        g[2047] = value
        array, i = multi.squares([(g, np.array([1, factor], np.float32))], [float32])[0]
        assert np.isfinite(array[i]) == finite
