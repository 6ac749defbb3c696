"""What the Triton rungs of softmax share: the formulas, and the four ops as one rung."""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# ruff: noqa: RET505 (of two branches on a constant, Triton compiles one: what follows an `if` it would compile for both)

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ulpgrad.formats import bfloat16, float16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.registry import Request, kernel
from ulpgrad.kernels.softmax import spec
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.triton_launch import tl, triton, typed
from ulpgrad.kernels.triton_lines import around

FORMATS = [float16, bfloat16, float32, float64]
OPS = (
    (spec.softmax, False, False), (spec.log_softmax, True, False),
    (spec.softmax_gradient, False, True), (spec.log_softmax_gradient, True, True),
)  # fmt: skip


@triton.jit
def finite_or_zero(top):
    """A maximum that may be subtracted: where all values so far are -inf it is 0."""
    return tl.where(top == float("-inf"), 0.0, top)


@triton.jit
def softmax_of(x, top, total, LOG: tl.constexpr):
    """The result from a value, its line's maximum and sum of exponentials; 0/0 where all of a line is -inf."""
    if LOG:
        return x - top - tl.log(total)
    else:
        return tl.exp(x - top) * (1 / total)


@triton.jit
def summand(g, y, LOG: tl.constexpr):
    """What the gradient needs the sum of over a line."""
    if LOG:
        return g
    else:
        return g * y


@triton.jit
def gradient_of(g, y, total, LOG: tl.constexpr):
    if LOG:
        return g - tl.exp(y) * total
    else:
        return y * (g - total)


def register(name: str, rank: int, document: str | None, run: Callable[..., None]) -> None:
    """The four ops as a rung: `run((out, *operands), lines, itemsize, log, is_gradient)` writes `out`, which is not empty."""
    for op, log, is_gradient in OPS:
        _register(op, name, rank, document, run, log, is_gradient)


def _register(
    op: Op, name: str, rank: int, document: str | None, run: Callable[..., None], log: bool, is_gradient: bool
) -> None:
    def build(request: Request) -> Callable[..., Any]:
        form = request.formats[0]
        assert form is not None

        def call(*arrays: Any, axis: int) -> Any:
            out = gpu.empty(arrays[0].shape, arrays[0].dtype)
            if out.size:
                run([typed(a, form) for a in (out, *arrays)], around(out.shape, axis), out.itemsize, log, is_gradient)
            return out

        return call

    idea = (document or "").split("\n\n")[0].replace("\n", " ")
    kernel(op, name, rank=rank, formats=FORMATS, contiguous=True, build=True, idea=idea, replays=True)(build)
