"""One optimizer step on a list of parameters: those that the C++ kernel takes go through it in a single call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ulpgrad.formats import Array, Format
from ulpgrad.kernels import registry
from ulpgrad.kernels.optimizer import spec
from ulpgrad.kernels.optimizer.native_fused import step_of
from ulpgrad.kernels.registry import Request

TOGETHER = "cpu/native-fused"

_runs: dict[tuple[Any, ...], Any] = {}  # what was chosen for an op, formats and layout: TOGETHER, or a function


def step(
    name: str,
    groups: Sequence[Sequence[Array | None]],
    formats: Sequence[tuple[Format | None, ...]],
    pinned: str | None = None,
    **params: Any,
) -> None:
    """Run the op `name` in place on every group (p, g, state...) of arrays, with one tuple of formats per group.

    `params` are the op's keywords, the same for all groups. `pinned` names a rung that must be taken. The results are
    those of a call per group, bit for bit.
    """
    op = registry.find(name)
    together: dict[Format | None, list[Sequence[Array | None]]] = {}
    for arrays, forms in zip(groups, formats, strict=True):
        if op.check is not None:
            op.check(*arrays, **params)
        key = op, forms, spec.are_flat(*arrays), pinned
        run = _runs.get(key)
        if run is None:
            request = Request(op, "cpu", forms, tuple(arrays), params)
            rung, _ = registry.select(request, pinned)
            run = _runs[key] = TOGETHER if rung.name == TOGETHER else rung.run(request) if rung.build else rung.run
        if run is TOGETHER:
            together.setdefault(forms[0], []).append(arrays)
        else:
            run(*arrays, **params)
    for parameters in together.values():
        step_of(op)(parameters, **params)
