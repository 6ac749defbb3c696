"""One optimizer step on a list of parameters, or the squares of their gradients: those that their device's fused kernel takes go
through it in a single call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ulpgrad.formats import Array, Format
from ulpgrad.kernels import gpu, native, registry
from ulpgrad.kernels.optimizer import native_fused
from ulpgrad.kernels.optimizer.spec import are_flat, sum_of_squares
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op

TOGETHER = ("cpu/native-fused", "cuda/triton-multi", "cpu/native-lanes", "cuda/triton-squares")

_chosen: dict[tuple[Any, ...], Rung] = {}


def step(
    name: str,
    groups: Sequence[Sequence[Array | None]],
    formats: Sequence[tuple[Format | None, ...]],
    pinned: str | None = None,
    **params: Any,
) -> None:
    """Run the op `name` in place on every group (p, g, state..., scaling) of arrays, with one tuple of formats per group.

    `params` are the op's keywords, the same for all groups. `pinned` names a rung that must be taken. The arrays of a group lie
    on one device. The results are those of a call per group, bit for bit.
    """
    op = registry.find(name)
    together: dict[tuple[int, Format | None], list[Sequence[Array | None]]] = {}
    for arrays, forms in zip(groups, formats, strict=True):
        if op.check is not None:
            op.check(*arrays, **params)
        index, rung, request = _choose(op, arrays, forms, params, pinned)
        if rung.name in TOGETHER:
            together.setdefault((index, forms[0]), []).append(arrays)
        else:
            run: Callable[..., Any] = rung.run(request) if rung.build else rung.run
            _on(index, run, *arrays, **params)
    for (index, _), parameters in together.items():
        _on(index, _step_of(op, index), parameters, **params)


def squares(
    gradients: Sequence[tuple[Array, Array | None]], formats: Sequence[Format], pinned: str | None = None
) -> list[tuple[Any, int]]:
    """`sum_of_squares` of every (gradient, scaling): each as an array of such sums, where the gradient lies, and its place
    there."""
    op = sum_of_squares
    found: list[Any] = [None] * len(gradients)
    together: dict[tuple[Any, ...], list[int]] = {}
    for i, ((g, scaling), form) in enumerate(zip(gradients, formats, strict=True)):
        forms = (form, None if scaling is None else form)
        index, rung, request = _choose(op, (g, scaling), forms, {}, pinned)
        if rung.name in TOGETHER:
            together.setdefault((index, form, id(scaling) if index >= 0 else None), []).append(i)
        else:
            run: Callable[..., Any] = rung.run(request) if rung.build else rung.run
            found[i] = _on(index, run, g, scaling).reshape(1), 0
    for (index, *_), places in together.items():
        if index < 0:
            sums = native.module().sum_of_squares([gradients[i] for i in places])
        else:
            from ulpgrad.kernels.optimizer import triton_squares

            sums = _on(index, triton_squares.squares_of, [gradients[i][0] for i in places], gradients[places[0]][1])
        for i, place in enumerate(places):
            found[place] = sums, i
    return found


def _choose(
    op: Op, arrays: Sequence[Array | None], forms: tuple[Format | None, ...], params: dict[str, Any], pinned: str | None
) -> tuple[int, Rung, Request]:
    """The number of the device that the arrays lie on (-1: the host), the rung that takes them, and what it was asked."""
    first: Any = arrays[0]
    index = -1 if first.__class__ is np.ndarray else int(first.device.id)
    key = (op, index >= 0, forms, are_flat(*arrays), pinned)
    rung = _chosen.get(key)
    request = Request(op, "cpu" if index < 0 else "cuda", forms, tuple(arrays), params)
    if rung is None:
        rung = _chosen[key] = registry.select(request, pinned)[0]
    return index, rung, request


def _step_of(op: Op, index: int) -> Callable[..., None]:
    if index < 0:
        return native_fused.step_of(op)
    from ulpgrad.kernels.optimizer import triton_multi

    return triton_multi.step_of(op)


def _on(index: int, run: Callable[..., Any], *args: Any, **params: Any) -> Any:
    """Run on the device of that number, or (-1) on the host."""
    if index < 0:
        return run(*args, **params)
    with gpu.on_device(index):
        return run(*args, **params)
