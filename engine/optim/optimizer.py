"""What all optimizers share: groups of parameters, state per parameter, and one fused kernel call per group.

Parameters are written in place. Those in 16-bit formats keep a float32 master copy here: the step is made on it, and the
parameter is the master rounded once, so that small steps are not lost (Micikevicius et al. 2018).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ulpgrad import dispatch
from ulpgrad.device import beside, moved_to
from ulpgrad.errors import ArgumentError, FormatError, GradientError
from ulpgrad.formats import Array, Format, compute_format
from ulpgrad.kernels import capture, deferred, gpu, memory
from ulpgrad.kernels.copy import copied
from ulpgrad.kernels.optimizer import multi
from ulpgrad.kernels.spec import Op
from ulpgrad.nn.module import zero_grad
from ulpgrad.ops.creation import astype, writeable
from ulpgrad.scaled import Flag, Scaling, unread
from ulpgrad.tensor import Tensor

Group = dict[str, Any]
Parameters = Iterable[Tensor] | Iterable[Mapping[str, Any]]


@dataclass(slots=True)
class State:
    """What is kept of one parameter: steps so far, state arrays (None: not kept), and the master of a 16-bit parameter
    with the parameter's version it belongs to."""

    form: Format
    arrays: list[Array | None]
    step: int = 0
    master: Array | None = None
    version: int = -1


class Optimizer:
    """Base of optimizers. A subclass names its op, the op's state operands, and the op's arguments.

    `params` are tensors, or dicts with "params" and settings of their own; `defaults` are the settings of the rest.
    `param_groups` may be changed between steps, as learning rate schedules do.
    """

    op: ClassVar[Op]
    state_names: ClassVar[tuple[str, ...]]

    def __init__(self, params: Parameters, **defaults: Any) -> None:
        self.defaults = defaults
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, State] = {}
        self._uncertain: tuple[Flag, list[tuple[Group, State, int]]] | None = None
        given: list[Any] = [params] if isinstance(params, (Tensor, Mapping)) else list(params)
        if not given:
            raise ArgumentError(
                f"{type(self).__name__}: got no parameters; is model.parameters() an exhausted iterator?"
            )
        groups = given if all(isinstance(g, Mapping) for g in given) else [{"params": given}]
        for group in groups:
            self.add_param_group(group)

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Optimize more parameters: {"params": tensors, and settings that differ from the defaults}."""
        name = type(self).__name__
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        known = {id(p) for other in self.param_groups for p in other["params"]}
        for p in params:
            if not isinstance(p, Tensor):
                raise ArgumentError(f"{name}: expected tensors, got {type(p).__name__}")
            if not p.is_leaf:
                raise GradientError(
                    f"{name}: a parameter of shape {p.shape} was computed; only leaves can be optimized"
                )
            if p.dtype.kind != "float":
                raise FormatError(
                    f"{name}: a parameter of shape {p.shape} is {p.dtype.name}: expected a floating format"
                )
            if not writeable(p.storage):
                raise ArgumentError(
                    f"{name}: a parameter of shape {p.shape} lies in read-only memory; optimize a copy of it"
                )
            if id(p) in known:
                raise ArgumentError(f"{name}: a parameter of shape {p.shape} is given twice")
            known.add(id(p))
        unknown = [key for key in group if key != "params" and key not in self.defaults]
        if unknown:
            raise ArgumentError(f"{name}: no setting {unknown[0]!r}: expected {', '.join(self.defaults)}")
        made = {**self.defaults, **group, "params": params}
        self.check(made)
        self.param_groups.append(made)

    # What a subclass says

    def check(self, group: Group) -> None:
        """Raise ArgumentError for settings outside their domain."""
        for key in ("lr", "eps", "weight_decay", "momentum"):
            if key in group and not group[key] >= 0:
                raise ArgumentError(f"{type(self).__name__}: {key}={group[key]!r}: expected a number of at least 0")

    def kept(self, group: Group) -> tuple[bool, ...]:
        """Which of `state_names` the group's settings need."""
        return (True,) * len(self.state_names)

    def arguments(self, group: Group, state: State) -> dict[str, Any]:
        """The op's keywords; `state.step` counts this step already."""
        raise NotImplementedError

    # Stepping

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients, or make them zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                zero_grad(p, set_to_none)

    def step(self) -> None:
        """Write every parameter that has a gradient. What gradients are still to be multiplied by is applied as they are read."""
        self._step(None)

    def step_where(self, finite: Flag) -> None:
        """`step` if a flag turns out true; else everything stays as it is. The host does not wait for it: the step's kernels
        look. An optimizer with a `step` of its own does wait."""
        if type(self).step is not Optimizer.step:
            if finite:
                self.step()
            return
        self._step(finite)

    def _settle(self) -> None:
        """Take back the count of a step that was left out."""
        if self._uncertain is not None:
            finite, counts = self._uncertain
            self._uncertain = None
            for _, state, before in () if finite else counts:
                state.step = before

    def _step(self, finite: Flag | None) -> None:
        if gpu.state.questions:
            deferred.look()
        self._settle()
        counts: list[tuple[Group, State, int]] = []
        captured = capture.current()
        if captured is not None:  # each replay counts first, so that settings are those of its step
            captured.before.append(lambda: self._count(counts, finite))
        for group in self.param_groups:
            kept = self.kept(group)
            batches: dict[tuple[Any, ...], list[tuple[Tensor, State]]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    state = self._state(p, kept)
                    counts.append((group, state, state.step))
                    state.step += 1
                    arguments = self.arguments(group, state)
                    batches.setdefault(tuple(arguments.items()), []).append((p, state))
            for items, batch in batches.items():
                if captured is not None:
                    captured.settings = functools.partial(self.arguments, group, batch[0][1])
                self._run(batch, dict(items), finite)
        if captured is not None:
            captured.settings = None
            for _, state, before in counts:  # nothing has run yet
                state.step = before
        elif finite is not None:
            self._uncertain = finite, counts

    def _count(self, stepped: list[tuple[Group, State, int]], finite: Flag | None) -> None:
        """Count a step that a graph makes."""
        self._settle()
        if finite is not None:
            self._uncertain = finite, [(group, state, state.step) for group, state, _ in stepped]
        for group, state, _ in stepped:
            state.step += 1
            self.arguments(group, state)  # which may have counts of its own

    def _state(self, p: Tensor, kept: tuple[bool, ...]) -> State:
        """A parameter's state, with the arrays that its group needs now."""
        form = compute_format(p.dtype)
        state = self.state.get(p)
        if state is None or (p.dtype is not form and state.version != p._version_cell()[0]):
            capture.refuse(
                f"{type(self).__name__}'s first step of a parameter of shape {p.shape}, or one after others wrote to it,",
                "its state is made then: step once before (ulpgrad.cuda.make_graphed does)",
            )
        if state is None:
            state = self.state[p] = State(form, [None] * len(kept))
        elif state.form is not form:
            raise FormatError(
                f"{type(self).__name__}: a parameter of shape {p.shape} became {p.dtype.name} after it was stepped in "
                f"{state.form.name}; convert a model before its optimizer is made"
            )
        for i, wanted in enumerate(kept):
            if not wanted:
                state.arrays[i] = None
            else:
                state.arrays[i] = self._there(p, state.arrays[i], form)
        if p.dtype is not form and (state.master is None or state.version != p._version_cell()[0]):
            state.master = dispatch.convert(p.storage, p.dtype, form)
        return state

    @staticmethod
    def _there(p: Tensor, array: Array | None, form: Format) -> Array:
        """A state array where its parameter lies: zeros at first, moved along when the parameter has moved."""
        if array is None:
            array = memory.zeros_beside(p.storage, p.shape, form.storage)
        there: Array = array if array.__class__ is p.storage.__class__ is np.ndarray else moved_to(array, p.device)
        return there

    def _run(self, batch: list[tuple[Tensor, State]], arguments: dict[str, Any], finite: Flag | None) -> None:
        calls, formats = [], []
        switched = None if finite is None else Scaling()
        for p, state in batch:
            g, scaling = p.grad, switched
            assert g is not None
            if g.dtype is state.form:
                g, factors = unread(g)
                scaling = factors or switched
            gradient = g.storage if g.dtype is state.form else dispatch.convert(g.storage, g.dtype, state.form)
            if not gradient.flags.c_contiguous:
                gradient = copied(gradient)
            numbers = None if scaling is None else scaling.operand(state.form, gradient, finite)
            calls.append((p.storage if state.master is None else state.master, gradient, *state.arrays, numbers))
            formats.append(
                (state.form, state.form, *[None if a is None else state.form for a in (*state.arrays, numbers)])
            )
        if dispatch.state.special:
            for operands, forms in zip(calls, formats, strict=True):
                dispatch.call(self.op, forms, operands, arguments)
        else:
            multi.step(self.op.name, calls, formats, **arguments)
        for p, state in batch:
            if state.master is not None:
                with beside(p.storage):
                    p.storage[...] = dispatch.convert(state.master, state.form, p.dtype)
            p._written()
            state.version = p._version_cell()[0]

    # Saving and loading

    def state_dict(self) -> dict[str, Any]:
        """Settings and state in torch's arrangement: parameters are numbered through all groups."""
        self._settle()
        numbers = {id(p): i for i, p in enumerate(p for group in self.param_groups for p in group["params"])}
        state = {}
        for p, kept in self.state.items():
            named = {**dict(zip(self.state_names, kept.arrays, strict=True)), "master": kept.master}
            tensors = {name: Tensor(copied(a), kept.form) for name, a in named.items() if a is not None}
            state[numbers[id(p)]] = {"step": kept.step, **tensors}
        groups = [{**group, "params": [numbers[id(p)] for p in group["params"]]} for group in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, given: Mapping[str, Any]) -> None:
        """Take over settings and state from `state_dict` of the same optimizer on parameters of the same shapes.

        Raises ArgumentError, before anything is changed, where they do not fit.
        """
        name = f"{type(self).__name__}.load_state_dict"
        groups = given["param_groups"]
        own, other = ([len(g["params"]) for g in gs] for gs in (self.param_groups, groups))
        if own != other:
            raise ArgumentError(f"{name}: the groups have {other} parameters, this optimizer's have {own}")
        params = [p for group in self.param_groups for p in group["params"]]
        fresh: dict[Tensor, State] = {}
        for number, values in given["state"].items():
            p = params[int(number)]
            form = compute_format(p.dtype)
            arrays: dict[str, Array] = {}
            for key, value in values.items():
                if key == "step":
                    continue
                if key not in (*self.state_names, "master"):
                    raise ArgumentError(f"{name}: unknown state {key!r}: expected {', '.join(self.state_names)}")
                if tuple(value.shape) != p.shape:
                    raise ArgumentError(
                        f"{name}: {key} of parameter {number} has shape {value.shape}, expected {p.shape}"
                    )
                arrays[key] = astype(value.detach().to(p.device), form, copy=True).storage
            fresh[p] = State(form, [arrays.get(n) for n in self.state_names], int(values["step"]))
            if p.dtype is not form and "master" in arrays:
                fresh[p].master, fresh[p].version = arrays["master"], p._version_cell()[0]
        for group, values in zip(self.param_groups, groups, strict=True):
            group.update({key: value for key, value in values.items() if key != "params"})
        self.state, self._uncertain = fresh, None

    def __repr__(self) -> str:
        settings = [", ".join(f"{k}={v!r}" for k, v in g.items() if k != "params") for g in self.param_groups]
        return f"{type(self).__name__}({'; '.join(settings)})"
