"""What rungs in steps are made of: the highest rung of another op, called as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import Array, Format
from ulpgrad.kernels import registry
from ulpgrad.kernels.registry import Request


def best(name: str, form: Format | tuple[Format, ...], *arrays: Array | None, **params: Any) -> Callable[..., Any]:
    """The highest rung of an op of the CPU that takes a call, with operands of one format or of one each, as it is."""
    return best_on("cpu", name, form, *arrays, **params)


def best_on(
    device: str, name: str, form: Format | tuple[Format, ...], *arrays: Any, **params: Any
) -> Callable[..., Any]:
    """The same of a device's rungs."""
    formats = form if isinstance(form, tuple) else tuple(None if a is None else form for a in arrays)
    request = Request(registry.find(name), device, formats, arrays, params)
    rung, _ = registry.select(request)
    run: Callable[..., Any] = rung.run(request) if rung.build else rung.run
    return run if not rung.contiguous else lambda *given, **how: run(*map(_contiguous, given), **how)


def _contiguous(a: Array | None) -> Array | None:
    return a if a is None or a.flags.c_contiguous else a.copy()
