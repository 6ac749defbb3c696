"""Calls of integer kernels on codes, and a log of them: which op, by which rung, on which operands."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import numpy as np

from ulpgrad import dispatch
from ulpgrad.formats import Format, int8, int16, int32, int64, uint8
from ulpgrad.kernels.spec import Op

FORMATS: dict[Any, Format] = {f.storage: f for f in (int8, uint8, int16, int32, int64)}


class Call(NamedTuple):
    """One kernel call: the op, the rung that ran it, the formats of its operands."""

    op: str
    rung: str
    operands: tuple[str, ...]


_log: ContextVar[list[Call] | None] = ContextVar("calls", default=None)


def run(op: Op, *arrays: Any, **params: Any) -> Any:
    """The op on integer arrays, through dispatch (pins and ULPGRAD_LOG=kernels hold here too)."""
    formats = tuple([None if a is None else FORMATS[a.dtype] for a in arrays])
    log = _log.get()
    if log is not None:
        rung = dispatch.plan(op, formats, arrays, params).rung
        log.append(Call(op.name, rung.name, tuple(f.name for f in formats if f is not None)))
    return dispatch.call(op, formats, arrays, params)[0]


@contextlib.contextmanager
def logged() -> Iterator[list[Call]]:
    """The calls made inside the block, in order."""
    calls: list[Call] = []
    token = _log.set(calls)
    try:
        yield calls
    finally:
        _log.reset(token)


def padded(x: np.ndarray[Any, Any], padding: tuple[int, int], value: int) -> np.ndarray[Any, Any]:
    """Images [n, c, h, w] with a border of `value`."""
    (top, left), (n, c, h, w) = padding, x.shape
    out = np.full((n, c, h + 2 * top, w + 2 * left), value, x.dtype)
    out[:, :, top : top + h, left : left + w] = x
    return out


__all__ = ["Call", "logged", "padded", "run"]
