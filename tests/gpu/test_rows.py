"""Lines too long for one program, by pieces made small so that an interpreter can take them; and that bits repeat."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.formats import Format, as_format, float32, float64
from ulpgrad.kernels import capabilities, gpu, registry

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import cast_sample, check

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

RNG = np.random.default_rng(7)
EDGES = np.where(RNG.random((3, 100)) < 0.3, -np.inf, RNG.standard_normal((3, 100)))
EDGES[0], EDGES[1, :70], EDGES[2, 90] = -np.inf, -np.inf, np.nan
X = RNG.standard_normal((5, 100)) * 4
CHANCES = np.exp(X) / np.exp(X).sum(1, keepdims=True)
LONGER = RNG.standard_normal(300)
TIED = RNG.integers(0, 4, (20, 9)).astype(np.uint64)
POSITIONS, FLAT = RNG.standard_normal((5, 3, 40)) + 5, RNG.standard_normal((90, 7, 1)) - 3
CLASSES = np.array([7, 99, 3, 0, 50])
SMALL = {
    "softmax.triton_online": {"PIECE": 32},
    "softmax.triton_split": {"PIECE": 32},
    "softmax.triton_row": {"LONGEST": 64, "LONGEST_BACK": 64},
    "norm.triton_row": {"LONGEST": 64, "LONGEST_BACK": 64, "TILE": 64, "RUNS": 3},
    "norm.triton_sweeps": {"PIECE": 32, "RUN": 8, "COLUMNS": 16},
    "norm.triton_channels": {"TILE": 64, "ACROSS": 16, "NOTES": 4},
    "cross_entropy.triton_rows": {"PIECE": 32, "TILE": 64},
    "reduction.triton_tree": {"PIECE": 16},
    "reduction.triton_index": {"PIECE": 16},
    "reduction.triton_running": {"PIECE": 16},
}

LONG = [
    *[(op, f"cuda/triton-{idea}", (x,), {"axis": 1})
      for op in ("softmax", "log_softmax") for idea in ("online", "split", "row") for x in (X, EDGES)],
    *[(op, f"cuda/triton-{idea}", (X, CHANCES if op == "softmax_gradient" else np.log(CHANCES)), {"axis": 1})
      for op in ("softmax_gradient", "log_softmax_gradient") for idea in ("online", "split", "row")],
    *[("softmax", f"cuda/triton-{idea}", (RNG.standard_normal((2, 70, 3)),), {"axis": 1})
      for idea in ("online", "split", "row")],
    *[(op, "cuda/triton-tree", (x,), {"axis": (0,) if x.ndim == 1 else (1,), "keepdims": False, **more})
      for op, more in (("sum", {}), ("mean", {}), ("var", {"correction": 1.0}), ("prod", {}), ("max", {}), ("any", {}))
      for x in (X / 4, LONGER)],
    ("var", "cuda/triton-tree", (RNG.standard_normal((3, 8, 2, 5)) + 9,),
     {"axis": (1, 3), "keepdims": True, "correction": 0.0}),
    ("all", "cuda/triton-tree", (RNG.random((3, 100)) < 0.999,), {"axis": (1,), "keepdims": True}),
    ("min", "cuda/triton-tree", (RNG.integers(-(2**62), 2**62, (2, 40, 3)),), {"axis": (1,), "keepdims": True}),
    *[(op, "cuda/triton-index", (x,), {"axis": axis, "keepdims": False})
      for op in ("argmax", "argmin") for x, axis in ((X, 1), (TIED, 1), (TIED, None), (EDGES, 1), (TIED, 0))],
    *[(op, "cuda/triton-running", (x,), {"axis": 1}) for op in ("cumulative_sum", "cumulative_prod") for x in (
        X / 4, RNG.standard_normal((2, 40, 3)), RNG.integers(0, 255, (2, 100)).astype(np.uint8))],
    *[("layer_norm", f"cuda/triton-{idea}", (x, x[0], x[1]), {"eps": 1e-5})
      for idea, x in (("row", X), ("sweeps", X + 40))],
    *[("layer_norm_gradient", f"cuda/triton-{idea}", (x, x[::-1], x[0], x[:, 0], np.abs(x[:, 1])), {})
      for idea, x in (("row", X), ("row", RNG.standard_normal((21, 30))), ("sweeps", RNG.standard_normal((21, 50))))],
    *[("batch_norm", "cuda/triton-channels", (x, x[0, :, 0], x[1, :, 0]), {"eps": 1e-5}) for x in (POSITIONS, FLAT)],
    *[("batch_norm_gradient", "cuda/triton-channels", (x, x[::-1], x[0, :, 0], x[2, :, 0], np.abs(x[3, :, 0])), {})
      for x in (POSITIONS, FLAT)],
    *[("cross_entropy", "cuda/triton-rows", (x, CLASSES[: len(x)]), {"ignore_index": 3, "label_smoothing": s})
      for x, s in ((X, 0.0), (X, 0.25), (EDGES[1:], 0.0))],
    ("cross_entropy_gradient", "cuda/triton-rows", (X[:, 0], X, CLASSES, np.log(np.exp(X).sum(1))),
     {"ignore_index": -1, "label_smoothing": 0.25}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, constants in SMALL.items():
        for name, value in constants.items():
            monkeypatch.setattr(importlib.import_module(f"ulpgrad.kernels.{module}"), name, value)


def run(name: str, rung: str, arrays: Any, formats: Any, params: dict[str, Any]) -> Any:
    op = registry.find(name)
    given = tuple(None if a is None else gpu.to_device(a) for a in arrays)
    with dispatch.use(**{name: rung}):
        found = dispatch.call(op, formats, given, params)[0]
    return tuple(map(gpu.to_host, found)) if isinstance(found, tuple) else gpu.to_host(found)


def stored(a: Any) -> tuple[Any, Format | None]:
    if a is None:
        return None, None
    target = float32 if a.dtype.kind == "f" else as_format(a.dtype)
    return cast_sample(a, target), target


@pytest.mark.parametrize(
    ("name", "rung", "operands", "params"), [pytest.param(*c, id=f"{i}-{c[0]}-{c[1]}") for i, c in enumerate(LONG)]
)
def test_long_lines(name: str, rung: str, operands: Any, params: dict[str, Any]) -> None:
    arrays, formats = zip(*(stored(a) for a in operands), strict=True)
    again = []

    def call(*given: Any, **_: Any) -> Any:
        again.extend(run(name, rung, given, formats, params) for _ in range(2))
        return again[0]

    with np.errstate(all="ignore"):
        check(registry.find(name), arrays, formats, params, call)
    first, second = (found if isinstance(found, tuple) else (found,) for found in again)
    assert [a.tobytes() for a in first] == [b.tobytes() for b in second]


def test_linear_cross_entropy() -> None:
    """By chunks on the GPU as on the CPU."""
    found = []
    for device in ("cpu", "cuda"):
        x, weight = (ug.asarray(a.astype(np.float32)).to(device) for a in (X[:, :8], X[:, 8:16]))
        x.requires_grad = weight.requires_grad = True
        ug.linear_cross_entropy(
            x, weight, None, ug.asarray([1, 4, 3, 0, 2]).to(device), ignore_index=3, chunk=2
        ).backward()
        found.append([t.grad.to("cpu").numpy() for t in (x, weight)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_turned_arrays_are_reduced_as_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """A permuted array has no gaps: nothing of its size is copied."""
    made: list[int] = []
    real = gpu.contiguous
    monkeypatch.setattr(gpu, "contiguous", lambda a: (made.append(0 if a.flags.c_contiguous else a.size), real(a))[1])
    x = RNG.standard_normal((3, 4, 25))
    turned = gpu.to_device(x).transpose((2, 0, 1))
    for axis in ((0,), (1,), (0, 2)):
        with dispatch.use(sum="cuda/triton-tree"):
            found = dispatch.call(registry.find("sum"), (float64,), (turned,), {"axis": axis, "keepdims": False})[0]
        np.testing.assert_allclose(gpu.to_host(found), x.transpose((2, 0, 1)).sum(axis), rtol=1e-12)
        assert found.flags.c_contiguous
    assert max(made) < x.size
