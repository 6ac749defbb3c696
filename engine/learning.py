"""What a remembered function's call came to, in steps that `csrc/cpu/remembered_lesson.cpp` can follow.

The function runs once while every op and every movement of data in it is heard. Where they start from tensors among the
arguments, and none of them hung on values, the same kernels on other tensors like these give the same function of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from ulpgrad import autograd, dispatch
from ulpgrad.autograd import Saved
from ulpgrad.differentiable import Movement, MoveNode, OpNode, PlainCall, plain_calls
from ulpgrad.formats import Format
from ulpgrad.kernels import gpu, native, replay
from ulpgrad.tensor import Tensor

MOST_TENSORS = 48  # of a lesson (csrc/cpu/remembered_lesson.h)


def _learn(function: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, ...]:
    """What a remembered function gives; and, if that comes of calls on tensors among the arguments and on one another's
    results alone, how to come to it again: the steps, and where among their results it is."""
    with plain_calls as calls:
        out = function(*args, **options)
        heard, numbers, varying = calls.heard, calls.numbers, calls.varying
    outs = out if out.__class__ is tuple else (out,)
    wanted = {id(o) for o in outs}  # by what is to be made yet
    needed: list[PlainCall | Movement] = []
    for call in reversed(heard):
        if any(id(o) in wanted for o in call.outs):
            needed.insert(0, call)
            wanted.difference_update(map(id, call.outs))
            wanted.update(id(t) for t in call.tensors if t is not None)
    places: dict[int, int] = {}
    count = 0
    for t in _tensors_among((*args, *options.values())):
        places[id(t)] = count
        count += 1
    constants = {id(t) for t in numbers}
    steps = []
    for call in needed:
        if any(t is not None and id(t) not in places and id(t) not in constants for t in call.tensors):
            return (out,)
        where = tuple(t if t is None else places.get(id(t), t) for t in call.tensors)
        step = _op_step(call, where) if isinstance(call, PlainCall) else _movement_step(call, where)
        if step is None:
            return (out,)
        steps.append(step)
        for o in call.outs:
            places[id(o)] = count
            count += 1
    made = {id(o) for call in needed for o in call.outs}
    if varying or count > MOST_TENSORS or not made or any(id(o) not in made for o in outs):
        return (out,)
    found = tuple(places[id(o)] for o in outs)
    return out, steps, found if out.__class__ is tuple else found[0]


def _tensors_among(given: Any) -> Iterator[Tensor]:
    for one in given:
        if isinstance(one, Tensor):
            yield one
        elif isinstance(one, (list, tuple)):
            yield from _tensors_among(one)


def _op_step(call: PlainCall, where: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """The kernel of a call, the formats of its results, its operands, parameters, what its node is made of, and on a device its
    script, without which the call is not learnt."""
    primitive, tensors, outs, params, asked = call
    arrays = tuple(None if t is None else t.storage for t in tensors)
    index = None if outs[0].storage.__class__ is np.ndarray else int(outs[0].storage.device.id)
    if index is not None:
        where = tuple(_moved(place, index) for place in where)
        arrays = tuple(w.storage if isinstance(w, Tensor) else a for a, w in zip(arrays, where, strict=True))
    plan = dispatch.plan(primitive.op, tuple(None if t is None else t.dtype for t in tensors), arrays, params)
    script = None if index is None else _script(plan, asked, arrays, outs, index)
    if index is not None and script is None:
        return None
    node = None
    if outs[0].requires_grad:
        mask = sum(1 << i for i, t in enumerate(tensors) if t is not None and t.requires_grad)
        node = primitive.op.name, autograd.operands_of(tensors), primitive, *primitive.needs(mask)
    return _from_here(plan.run_on(arrays)), plan.formats, where, params, node, script


def _moved(place: Any, index: int) -> Any:
    """The place of an operand; a number of the host is moved to the device of that number."""
    if not isinstance(place, Tensor) or place.storage.__class__ is not np.ndarray:
        return place
    there = dispatch.constant(place.storage, index)
    gpu.xp().cuda.get_current_stream().synchronize()  # once, for calls on all streams to come: they do not wait for the copy
    return Tensor(there, place.dtype)


def _script(
    plan: dispatch.Plan, asked: list[Any], arrays: tuple[Any, ...], outs: tuple[Tensor, ...], index: int
) -> tuple[Any, ...] | None:
    """What a call asked of a device, as `csrc/cpu/remembered_script.cpp` asks it again; None where it cannot."""
    if not plan.replays or any(a.__class__ is np.ndarray for a in arrays):
        return None
    results = tuple(o.storage for o in outs)
    found = replay.written(asked, arrays, results if len(results) > 1 else results[0])
    return None if found is None else (*replay.in_steps(*found), index)


def _movement_step(call: Movement, where: tuple[Any, ...]) -> tuple[Any, ...] | None:
    """As `_op_step`; in the place of a view's parameters, how it lies in its operand's memory."""
    (out,) = call.outs
    if out.storage.__class__ is not np.ndarray:
        return None
    node = (call.name, autograd.operands_of(call.tensors), call.back) if out.requires_grad else None
    if call.run is not None:
        return call.run, (out.dtype,), where, {}, node, None
    array, whole = out.storage, call.tensors[0].storage
    (first, end), (low, high) = byte_bounds(array), byte_bounds(whole)
    if not (array.size and low <= first and end <= high):  # no view after all
        return None
    layout = array.shape, array.strides, _address(array) - _address(whole), array.flags.writeable
    return None, (out.dtype,), where, layout, node, None


def _address(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _from_here(run: Callable[..., Any]) -> Callable[..., Any]:
    """NumPy's own functions, called by ours: their warnings are silenced by the module that calls them."""
    return (lambda *arrays, **params: run(*arrays, **params)) if isinstance(run, np.ufunc) else run


def begin() -> None:
    """Have remembered functions learn from now on."""
    if native.missing() is None:
        native.module().remember_calls(
            Tensor, Saved, OpNode, MoveNode, Format, dispatch.state, autograd.recording, autograd.sequence, _learn
        )
