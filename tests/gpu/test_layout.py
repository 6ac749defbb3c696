"""How elementwise kernels walk over memory: axes joined, results laid out as NumPy lays them out, offsets of 64 bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad.formats import float32
from ulpgrad.kernels import capabilities, gpu, triton_layout
from ulpgrad.kernels.elementwise.spec import OPS
from ulpgrad.kernels.elementwise.table import ROWS
from ulpgrad.kernels.registry import Request
from ulpgrad.kernels.triton_layout import Walk, walk

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

BASE = np.arange(720, dtype=np.float32).reshape(4, 5, 6, 6)
VIEWS: dict[str, tuple[Any, Any]] = {
    "both contiguous": (lambda a: a, lambda a: a),
    "both turned": (lambda a: a.transpose(3, 1, 2, 0), lambda a: a.transpose(3, 1, 2, 0)),
    "one turned": (lambda a: a, lambda a: a.transpose(0, 1, 3, 2)),
    "last axis of one": (lambda a: a, lambda a: a[0, 0, 0]),
    "first axes of one": (lambda a: a, lambda a: a[:, :, :1, :1]),
    "middle axes of both": (lambda a: a[:, :1], lambda a: a[:1, :, :, :1]),
    "one value": (lambda a: a.transpose(1, 0, 2, 3), lambda a: a[0, 0, 0, 0]),
    "every other": (lambda a: a[:, ::2, 1:, ::2], lambda a: a[:, 1::2, :5, 1::2][:, :1]),
    "backwards": (lambda a: a[::-1, :, ::-1], lambda a: a[:, ::-1]),
    "nothing": (lambda a: a[:0], lambda a: a[:1, :1]),
}


def add() -> Any:
    """A kernel's road that remembers nothing yet."""
    from ulpgrad.kernels.elementwise import triton_loop

    return triton_loop.function_of(ROWS["add"], Request(OPS["add"], "cuda", (float32, float32), (), {}))


def found(shape: tuple[int, ...], *strides: tuple[int, ...]) -> Walk:
    return walk(tuple((shape, s) for s in strides), 4)


@pytest.mark.parametrize("is_wide", [False, True])
def test_views_are_read_and_results_laid_out_as_by_numpy(is_wide: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if is_wide:
        monkeypatch.setattr(triton_layout, "INT32", 0)
    run = add()
    for name, (first, second) in VIEWS.items():
        x, y = first(BASE), second(BASE)
        for _ in range(2):  # found, then remembered
            got = run(first(gpu.xp().asarray(BASE)), second(gpu.xp().asarray(BASE)))
        np.testing.assert_array_equal(gpu.to_host(got), x + y, err_msg=name)
        if x.shape == y.shape and x.strides == y.strides and x.size:
            assert got.strides == (x + y).strides, name


def test_axes_are_joined() -> None:
    assert found((4, 5, 6), (30, 6, 1), (30, 6, 1)).rank == 0
    assert found((4, 5, 6), (1, 4, 20), (1, 4, 20)).rank == 0  # one run as well, in another order
    rows = found((4, 5, 6), (30, 6, 1), (0, 0, 1))
    assert (rows.rank, rows.access, rows.numbers[:2]) == (1, ("both", "column"), (20, 6))
    assert found((2, 3, 4, 5), (60, 20, 5, 1), (20, 0, 5, 1)).numbers[:4] == (6, 20, 3, 60)


def test_large_memory_has_offsets_of_64_bits() -> None:
    assert not found((1 << 20, 1 << 10), (1 << 10, 1)).constants["WIDE"]
    assert found((1 << 21, 1 << 10), (1 << 10, 1)).constants["WIDE"]
    assert found((1 << 10, 1 << 10), (1 << 22, 1)).constants["WIDE"]
