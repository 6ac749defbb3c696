"""A step on a list of parameters is the same, bit for bit, as a step on each; 16-bit and strided ones find their rung."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad.errors import ShapeError
from ulpgrad.formats import bfloat16, float32, float64
from ulpgrad.kernels import native, registry
from ulpgrad.kernels.optimizer import multi
from ulpgrad.kernels.registry import Request

OPS = [registry.find(name) for name in ("sgd_step", "adam_step", "adagrad_step", "rmsprop_step")]
CASES = [pytest.param(op, sample.params, i, id=f"{op.name}-{i}") for op in OPS for i, sample in
         enumerate(s for s in op.samples() if s.arrays[0] is not None and s.arrays[0].shape == (5,))]  # fmt: skip


def group(op: Any, which: int, shape: tuple[int, ...], form: Any, seed: int) -> tuple[Any, ...]:
    """Arrays like those of the op's sample, in another shape."""
    rng = np.random.default_rng(seed)
    sample = [s for s in op.samples() if s.arrays[0].shape == (5,)][which]
    return tuple(None if a is None else form.encode(np.asarray(rng.random(shape))) for a in sample.arrays)


@pytest.mark.parametrize(("op", "params", "which"), CASES)
def test_list_is_as_one_by_one(op: Any, params: dict[str, Any], which: int) -> None:
    shapes = [(784, 50), (50,), (), (0,), (3, 40_000)]
    forms = [float32, float32, float64, float32, float32, bfloat16]
    groups = [group(op, which, s, f, i) for i, (s, f) in enumerate(zip([*shapes, (7, 3)], forms, strict=True))]
    strided = group(op, which, (9, 8), float32, 9)
    groups.append(tuple(None if a is None else a[:, ::2] for a in strided))
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
        multi.step("adagrad_step", [(p, g, p.copy())], [(float32,) * 3], lr=0.1, eps=1e-8, weight_decay=0.0)


@pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))
def test_native_refuses_what_would_race() -> None:
    p, s = np.zeros(3, np.float32), np.zeros(3, np.float32)
    step = native.module().adagrad_step
    scalars = {"lr": 0.1, "eps": 1e-8, "weight_decay": 0.0}
    for bad in ((p, p, s), (p, p.copy(), p), (p, s[:2].copy(), s), (p.astype(np.float64), p.copy(), s)):
        with pytest.raises((ValueError, TypeError)):
            step([bad], **scalars)
    read_only = p.copy()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="write"):
        step([(read_only, p, s)], **scalars)
