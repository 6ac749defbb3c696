"""Lines too long for one program, by pieces made small so that an interpreter can take them; and that bits repeat."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.formats import Format, as_format, bfloat16, float32
from ulpgrad.kernels import capabilities, gpu, registry

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import cast_sample, check

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

RNG = np.random.default_rng(7)
EDGES = np.where(RNG.random((3, 150)) < 0.3, -np.inf, RNG.standard_normal((3, 150)))
EDGES[0], EDGES[1, :100], EDGES[2, 140] = -np.inf, -np.inf, np.nan
X = RNG.standard_normal((5, 150)) * 4
CHANCES = np.exp(X) / np.exp(X).sum(1, keepdims=True)
SMALL = {
    "softmax.triton_online": {"PIECE": 32},
    "softmax.triton_split": {"PIECE": 32},
    "softmax.triton_row": {"LONGEST": 64},
}

LONG = [
    *[(op, f"cuda/triton-{idea}", (x,), {"axis": 1})
      for op in ("softmax", "log_softmax") for idea in ("online", "split", "row") for x in (X, EDGES)],
    *[(op, f"cuda/triton-{idea}", (X, CHANCES if op == "softmax_gradient" else np.log(CHANCES)), {"axis": 1})
      for op in ("softmax_gradient", "log_softmax_gradient") for idea in ("online", "split", "row")],
    *[("softmax", f"cuda/triton-{idea}", (RNG.standard_normal((2, 150, 3)),), {"axis": 1})
      for idea in ("online", "split", "row")],
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


def stored(a: Any, form: Format) -> tuple[Any, Format | None]:
    if a is None:
        return None, None
    target = form if a.dtype.kind == "f" else as_format(a.dtype)
    return cast_sample(a, target), target


@pytest.mark.parametrize("form", [float32, bfloat16], ids=str)
@pytest.mark.parametrize(("name", "rung", "operands", "params"), LONG)
def test_long_lines(name: str, rung: str, operands: Any, params: dict[str, Any], form: Format) -> None:
    arrays, formats = zip(*(stored(a, form) for a in operands), strict=True)
    again = []

    def call(*given: Any, **_: Any) -> Any:
        again.extend(run(name, rung, given, formats, params) for _ in range(2))
        return again[0]

    with np.errstate(all="ignore"):
        check(registry.find(name), arrays, formats, params, call)
    first, second = (found if isinstance(found, tuple) else (found,) for found in again)
    assert [a.tobytes() for a in first] == [b.tobytes() for b in second]
