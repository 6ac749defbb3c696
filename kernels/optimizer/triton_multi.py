"""One launch for all parameters of an optimizer: a table on the GPU says for every program where its part of parameter, gradient
and state lies. Each value is read once, and written once where it changes.

The table is kept for as long as the arrays lie where they lay, which CuPy's pool sees to from step to step. Settings are read
from memory in the parameters' own format, so a new learning rate compiles nothing; so are the factors of gradients, and the
switch that leaves everything as it is: the host needs to know neither. Products and sums are rounded one by one, so that a factor
applied here gives the bits of a pass of its own; memory is slower by far. Next limit: memory bandwidth.
"""

# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ulpgrad.errors import CaptureError
from ulpgrad.formats import float32, float64
from ulpgrad.kernels import capture, gpu
from ulpgrad.kernels.optimizer import spec
from ulpgrad.kernels.registry import kernel
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.triton_launch import launch, tl, triton

CHUNK = 16384  # bytes of each array to a program


@triton.jit
def part(table, which: tl.constexpr, i, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """Where the values `i` of this program's part of the array of that number lie."""
    address = tl.load(table + which * tl.num_programs(0) + tl.program_id(0))
    place = address.to(tl.pointer_type(KIND)) + i
    if ALIGNED:  # else each value would be read by itself
        place = tl.multiple_of(place, 16)
    return place


@triton.jit
def values_of_part(table, arrays: tl.constexpr):
    """How many values a part has. One that is whole needs no mask, under which values are read one by one."""
    return tl.load(table + arrays * tl.num_programs(0) + tl.program_id(0)).to(tl.int32)


@triton.jit
def values_to_write(table, arrays: tl.constexpr, scaling, FACTORS: tl.constexpr):
    """The same where the switch is on, else none."""
    count = values_of_part(table, arrays)
    if FACTORS >= 0:
        count = tl.where(tl.load(scaling) != 0, count, 0)
    return count


@triton.jit
def gradient_of_part(
    table, which: tl.constexpr, i, there, scaling, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr
):
    """The gradient's values, times all factors."""
    g = tl.load(part(table, which, i, KIND, ALIGNED), mask=there)
    for k in tl.static_range(FACTORS):
        g = g * tl.load(scaling + 1 + k)
    return g


@triton.jit
def _sgd_part(table, settings, scaling, i, there, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    lr, decay = tl.load(settings), tl.load(settings + 1)
    p = part(table, 0, i, KIND, ALIGNED)
    g = gradient_of_part(table, 1, i, there, scaling, FACTORS, KIND, ALIGNED)
    old = tl.load(p, mask=there)
    tl.store(p, old - lr * (g + decay * old), mask=there)


@triton.jit
def _sgd(
    table, settings, scaling, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    i, count = tl.arange(0, CHUNK), values_to_write(table, 2, scaling, FACTORS)
    if count == CHUNK:
        _sgd_part(table, settings, scaling, i, None, FACTORS, KIND, ALIGNED)
    else:
        _sgd_part(table, settings, scaling, i, i < count, FACTORS, KIND, ALIGNED)


@triton.jit
def _sgd_momentum_part(
    table, settings, scaling, i, there, FIRST: tl.constexpr, NESTEROV: tl.constexpr,
    FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    lr, decay = tl.load(settings), tl.load(settings + 1)
    momentum, fresh = tl.load(settings + 2), tl.load(settings + 3)
    p, kept = part(table, 0, i, KIND, ALIGNED), part(table, 2, i, KIND, ALIGNED)
    old = tl.load(p, mask=there)
    step = gradient_of_part(table, 1, i, there, scaling, FACTORS, KIND, ALIGNED) + decay * old
    buf = step
    if not FIRST:
        buf = momentum * tl.load(kept, mask=there) + fresh * step
    tl.store(kept, buf, mask=there)
    if NESTEROV:
        buf = step + momentum * buf
    tl.store(p, old - lr * buf, mask=there)


@triton.jit
def _sgd_momentum(
    table, settings, scaling, FIRST: tl.constexpr, NESTEROV: tl.constexpr,
    FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    i, count = tl.arange(0, CHUNK), values_to_write(table, 3, scaling, FACTORS)
    if count == CHUNK:
        _sgd_momentum_part(table, settings, scaling, i, None, FIRST, NESTEROV, FACTORS, KIND, ALIGNED)
    else:
        _sgd_momentum_part(table, settings, scaling, i, i < count, FIRST, NESTEROV, FACTORS, KIND, ALIGNED)


@triton.jit
def _adam_part(table, settings, scaling, i, there, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    beta1, beta2 = tl.load(settings), tl.load(settings + 1)
    fresh1, fresh2 = tl.load(settings + 2), tl.load(settings + 3)
    eps, decay, keep = tl.load(settings + 4), tl.load(settings + 5), tl.load(settings + 6)
    rate, root = tl.load(settings + 7), tl.load(settings + 8)
    p = part(table, 0, i, KIND, ALIGNED)
    m, v = part(table, 2, i, KIND, ALIGNED), part(table, 3, i, KIND, ALIGNED)
    old = tl.load(p, mask=there)
    step = gradient_of_part(table, 1, i, there, scaling, FACTORS, KIND, ALIGNED) + decay * old
    mean = beta1 * tl.load(m, mask=there) + fresh1 * step
    square = beta2 * tl.load(v, mask=there) + fresh2 * step * step
    tl.store(m, mean, mask=there)
    tl.store(v, square, mask=there)
    tl.store(p, keep * old - rate * mean / (tl.sqrt(square) * root + eps), mask=there)


@triton.jit
def _adam(
    table, settings, scaling, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    i, count = tl.arange(0, CHUNK), values_to_write(table, 4, scaling, FACTORS)
    if count == CHUNK:
        _adam_part(table, settings, scaling, i, None, FACTORS, KIND, ALIGNED)
    else:
        _adam_part(table, settings, scaling, i, i < count, FACTORS, KIND, ALIGNED)


@triton.jit
def _adagrad_part(table, settings, scaling, i, there, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    lr, eps, decay = tl.load(settings), tl.load(settings + 1), tl.load(settings + 2)
    p, s = part(table, 0, i, KIND, ALIGNED), part(table, 2, i, KIND, ALIGNED)
    old = tl.load(p, mask=there)
    step = gradient_of_part(table, 1, i, there, scaling, FACTORS, KIND, ALIGNED) + decay * old
    square = tl.load(s, mask=there) + step * step
    tl.store(s, square, mask=there)
    tl.store(p, old - lr * step / (tl.sqrt(square) + eps), mask=there)


@triton.jit
def _adagrad(
    table, settings, scaling, FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr
):
    i, count = tl.arange(0, CHUNK), values_to_write(table, 3, scaling, FACTORS)
    if count == CHUNK:
        _adagrad_part(table, settings, scaling, i, None, FACTORS, KIND, ALIGNED)
    else:
        _adagrad_part(table, settings, scaling, i, i < count, FACTORS, KIND, ALIGNED)


@triton.jit
def _rmsprop_part(
    table, settings, scaling, i, there, BUFFER: tl.constexpr,
    FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr,
):  # fmt: skip
    lr, alpha, fresh = tl.load(settings), tl.load(settings + 1), tl.load(settings + 2)
    eps, decay, momentum = tl.load(settings + 3), tl.load(settings + 4), tl.load(settings + 5)
    p, s = part(table, 0, i, KIND, ALIGNED), part(table, 2, i, KIND, ALIGNED)
    old = tl.load(p, mask=there)
    step = gradient_of_part(table, 1, i, there, scaling, FACTORS, KIND, ALIGNED) + decay * old
    square = alpha * tl.load(s, mask=there) + fresh * step * step
    tl.store(s, square, mask=there)
    move = step / (tl.sqrt(square) + eps)
    if BUFFER:
        buf = part(table, 3, i, KIND, ALIGNED)
        move += momentum * tl.load(buf, mask=there)
        tl.store(buf, move, mask=there)
    tl.store(p, old - lr * move, mask=there)


@triton.jit
def _rmsprop(
    table, settings, scaling, BUFFER: tl.constexpr,
    FACTORS: tl.constexpr, KIND: tl.constexpr, ALIGNED: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    i, count = tl.arange(0, CHUNK), values_to_write(table, 4 if BUFFER else 3, scaling, FACTORS)
    if count == CHUNK:
        _rmsprop_part(table, settings, scaling, i, None, BUFFER, FACTORS, KIND, ALIGNED)
    else:
        _rmsprop_part(table, settings, scaling, i, i < count, BUFFER, FACTORS, KIND, ALIGNED)


# What each op launches: a kernel, its settings, and what it is compiled for.


def _of_sgd(has_buffer: bool, *, lr: float, momentum: float, dampening: float, nesterov: bool, weight_decay: float,
            first: bool) -> Any:  # fmt: skip
    if not has_buffer:
        return _sgd, (lr, weight_decay), {}
    return (
        _sgd_momentum,
        (lr, weight_decay, momentum, 1 - dampening),
        {"FIRST": bool(first), "NESTEROV": bool(nesterov)},
    )


def _of_adam(_: bool, *, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float, decoupled: bool,
             step: int) -> Any:  # fmt: skip
    decay, keep = (0.0, 1 - lr * weight_decay) if decoupled else (weight_decay, 1.0)
    rate, root = lr / (1 - beta1**step), (1 - beta2**step) ** -0.5
    return _adam, (beta1, beta2, 1 - beta1, 1 - beta2, eps, decay, keep, rate, root), {}


def _of_adagrad(_: bool, *, lr: float, eps: float, weight_decay: float) -> Any:
    return _adagrad, (lr, eps, weight_decay), {}


def _of_rmsprop(has_buffer: bool, *, lr: float, alpha: float, eps: float, momentum: float, weight_decay: float) -> Any:
    return _rmsprop, (lr, alpha, 1 - alpha, eps, weight_decay, momentum), {"BUFFER": has_buffer}


LAUNCHED: dict[Op, Callable[..., Any]] = {
    spec.sgd_step: _of_sgd, spec.adam_step: _of_adam, spec.adagrad_step: _of_adagrad, spec.rmsprop_step: _of_rmsprop,
}  # fmt: skip


@lru_cache(64)
def table_of(
    device: int, stream: int, addresses: tuple[tuple[int, ...], ...], sizes: tuple[int, ...], itemsize: int, chunk: int
) -> Any:
    """[arrays + 1, programs]: where each program's parts lie, and how many values they have."""
    count = np.asarray(sizes)
    programs = -(-count // chunk)
    owner = np.repeat(np.arange(len(sizes)), programs)
    start = (np.arange(len(owner)) - np.repeat(np.cumsum(programs) - programs, programs)) * chunk
    parts = np.asarray(addresses, np.int64)[owner].T + start * itemsize
    rows = np.concatenate([parts, np.minimum(count[owner] - start, chunk)[None]])
    return capture.constant(np.ascontiguousarray(rows), device)


@lru_cache(64)
def _settings(device: int, stream: int, values: tuple[float, ...], dtype: Any) -> Any:
    return capture.constant(np.array(values, dtype), device)


def step_of(op: Op) -> Callable[..., None]:
    """The step of an optimizer op on a list of (p, g, state..., scaling) of one format, all C-contiguous, on the current
    device."""

    def step(parameters: Sequence[Sequence[Any]], **params: Any) -> None:
        alike: dict[tuple[bool, int], tuple[Any, list[list[Any]]]] = {}
        for *arrays, scaling in parameters:
            if arrays[0].size:
                _, some = alike.setdefault((arrays[-1] is not None, id(scaling)), (scaling, []))
                some.append([a for a in arrays if a is not None])
        for (is_complete, _), (scaling, some) in alike.items():
            _run(op, some, is_complete, scaling, params)

    return step


def _run(op: Op, parameters: list[list[Any]], has_buffer: bool, scaling: Any, params: dict[str, Any]) -> None:
    dtype, queue = parameters[0][0].dtype, gpu.queue()
    chunk = CHUNK // dtype.itemsize
    addresses = tuple(tuple(a.data.ptr for a in arrays) for arrays in parameters)
    table = capture.kept(table_of(*queue, addresses, tuple(a[0].size for a in parameters), dtype.itemsize, chunk))
    function, values, constants = LAUNCHED[op](has_buffer, **params)
    captured = capture.current()
    if captured is None:
        settings = _settings(*queue, tuple(map(float, values)), dtype)
    else:
        captured.reach(a for arrays in parameters for a in arrays)
        settings = captured.number(_renewed(op, has_buffer, dtype, (function, constants), captured.settings))
    is_aligned = all(address % 16 == 0 for group in addresses for address in group)
    launch(function, (table.shape[1],), table, settings, scaling, **constants,
           FACTORS=-1 if scaling is None else scaling.size - 1, enable_fp_fusion=False,
           KIND=tl.float64 if dtype.itemsize == 8 else tl.float32, ALIGNED=is_aligned, CHUNK=chunk,
           num_warps=8)  # fmt: skip


def _renewed(
    op: Op,
    has_buffer: bool,
    dtype: Any,
    compiled: tuple[Any, dict[str, Any]],
    settings: Callable[[], dict[str, Any]] | None,
) -> Callable[[], Any]:
    """What gives a captured launch its settings at each replay. CaptureError where another kernel would have to run."""
    if settings is None:
        raise CaptureError(
            f"{op.name} by itself cannot be captured in a graph, as its settings are the host's: use an Optimizer"
        )

    def values() -> Any:
        function, numbers, constants = LAUNCHED[op](has_buffer, **settings())
        if (function, constants) != compiled:
            raise CaptureError(
                f"{op.name}: {constants} are not the settings that the graph was captured with, {compiled[1]}, and are compiled "
                "into its kernel: let the optimizer step once before the capture, and capture anew after such a change"
            )
        return np.array(tuple(map(float, numbers)), dtype)

    return values


def _register(op: Op) -> None:
    def run(*arrays: Any, **params: Any) -> Any:
        step_of(op)((arrays,), **params)
        targets = op.mutated(arrays)
        return targets[0] if len(targets) == 1 else targets

    kernel(op, "cuda/triton-multi", rank=60, formats=[float32, float64], where=spec.flat_in_one_format)(run)


for _op in LAUNCHED:
    _register(_op)
