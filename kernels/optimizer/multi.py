"""One optimizer step on a list of parameters: those that the C++ kernel takes go through it in a single call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ulpgrad.formats import Array, Format
from ulpgrad.kernels import registry
from ulpgrad.kernels.optimizer.native_fused import step_of
from ulpgrad.kernels.optimizer.spec import are_flat
from ulpgrad.kernels.registry import Request, Rung

TOGETHER = "cpu/native-fused"

_chosen: dict[tuple[Any, ...], Rung] = {}


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
        key = (op, forms, are_flat(*arrays), pinned)
        rung = _chosen.get(key)
        request = Request(op, "cpu", forms, tuple(arrays), params)
        if rung is None:
            rung = _chosen[key] = registry.select(request, pinned)[0]
        if rung.name == TOGETHER:
            together.setdefault(forms[0], []).append(arrays)
        else:
            run: Callable[..., Any] = rung.run(request) if rung.build else rung.run
            run(*arrays, **params)
    for parameters in together.values():
        step_of(op)(parameters, **params)
