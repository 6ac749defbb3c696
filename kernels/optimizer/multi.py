"""One optimizer step on a list of parameters: those that their device's fused kernel takes go through it in a single call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format
from ulpgrad.kernels import gpu, registry
from ulpgrad.kernels.optimizer import native_fused
from ulpgrad.kernels.optimizer.spec import are_flat
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op

TOGETHER = ("cpu/native-fused", "cuda/triton-multi")

_chosen: dict[tuple[Any, ...], Rung] = {}


def step(
    name: str,
    groups: Sequence[Sequence[Array | None]],
    formats: Sequence[tuple[Format | None, ...]],
    pinned: str | None = None,
    **params: Any,
) -> None:
    """Run the op `name` in place on every group (p, g, state...) of arrays, with one tuple of formats per group.

    `params` are the op's keywords, the same for all groups. `pinned` names a rung that must be taken. The arrays of a group lie
    on one device. The results are those of a call per group, bit for bit.
    """
    op = registry.find(name)
    together: dict[tuple[int, Format | None], list[Sequence[Array | None]]] = {}
    for arrays, forms in zip(groups, formats, strict=True):
        if op.check is not None:
            op.check(*arrays, **params)
        p: Any = arrays[0]
        index = -1 if p.__class__ is np.ndarray else int(p.device.id)
        key = (op, index >= 0, forms, are_flat(*arrays), pinned)
        rung = _chosen.get(key)
        request = Request(op, "cpu" if index < 0 else "cuda", forms, tuple(arrays), params)
        if rung is None:
            rung = _chosen[key] = registry.select(request, pinned)[0]
        if rung.name in TOGETHER:
            together.setdefault((index, forms[0]), []).append(arrays)
        else:
            run: Callable[..., Any] = rung.run(request) if rung.build else rung.run
            _on(index, run, *arrays, **params)
    for (index, _), parameters in together.items():
        _on(index, _step_of(op, index), parameters, **params)


def _step_of(op: Op, index: int) -> Callable[..., None]:
    if index < 0:
        return native_fused.step_of(op)
    from ulpgrad.kernels.optimizer import triton_multi

    return triton_multi.step_of(op)


def _on(index: int, run: Callable[..., Any], *args: Any, **params: Any) -> None:
    """Run on the device of that number, or (-1) on the host."""
    if index < 0:
        run(*args, **params)
        return
    with gpu.on_device(index):
        run(*args, **params)
