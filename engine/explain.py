"""Why a call runs on the kernel it runs on: every rung's verdict, highest first."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ulpgrad import dispatch, ops
from ulpgrad.errors import ArgumentError, UlpgradError
from ulpgrad.formats import Format, as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.registry import Choice, Request
from ulpgrad.kernels.spec import Op
from ulpgrad.ops.common import as_tensor, normalize_axes, normalize_axis, pair
from ulpgrad.tensor import Tensor


class Explanation(NamedTuple):
    """The verdicts on one call. `taken` names the rung that runs it; printing it shows a table."""

    op: Op
    formats: tuple[Format | None, ...]
    shapes: tuple[tuple[int, ...] | None, ...]
    params: Mapping[str, Any]
    choices: tuple[Choice, ...]

    @property
    def taken(self) -> str:
        """Name of the rung that runs the call."""
        return next(c.rung.name for c in self.choices if c.taken)

    @property
    def call(self) -> str:
        """The call in one line."""
        operands = [
            "None" if s is None else f"{f}[{', '.join(map(str, s))}]"
            for f, s in zip(self.formats, self.shapes, strict=True)
        ]
        return f"{self.op.name}({', '.join([*operands, *(f'{k}={v}' for k, v in self.params.items())])})"

    def rows(self) -> list[tuple[str, str, str]]:
        """(mark, rung, verdict) of each rung, highest first."""
        return [("->" if c.taken else "", c.rung.name, verdict(c)) for c in self.choices]

    def __str__(self) -> str:
        rows = self.rows()
        wide = max(len(name) for _, name, _ in rows)
        return "\n".join([self.call, *(f"  {mark:<2} {name:<{wide}}  {text}" for mark, name, text in rows)])

    def __repr__(self) -> str:
        return str(self)


def verdict(choice: Choice) -> str:
    """One rung's answer in words."""
    if choice.refusal is not None:
        return choice.refusal
    wide = ", after narrow floats are widened" if choice.widened else ""
    return f"taken{wide}" if choice.taken else f"would take it{wide}"


def explain(op: str, *operands: Any, **params: Any) -> Explanation:
    """Which rung a call takes, and why those above it were refused; nothing is computed. (Of fixed-point, affine and block
    tensors, whose arithmetic is made of other ops, the call is made, and the largest of these is explained.)

    `op` names an op of the registry (`ulpgrad.kernels.registry.ops()`); operands are tensors, arrays or None. Parameters
    that are left out are those of the function of that name, else of the op's first fitting sample. Raises what the call
    itself would raise.
    """
    tensors = [None if x is None else as_tensor(x) for x in operands]
    arrays = tuple(None if t is None else t.storage for t in tensors)
    formats = tuple(None if t is None else t.dtype for t in tensors)
    if any(form is not None and form.routed for form in formats):
        return _explain_routed(op, tensors, params)
    return explain_call(registry.find(op), formats, arrays, params)


def _explain_routed(name: str, tensors: Sequence[Tensor | None], params: Mapping[str, Any]) -> Explanation:
    """The kernel that a call on a number system of its own arithmetic comes down to."""
    function = getattr(ops, registry.find(name).name, None)
    if not callable(function):
        raise ArgumentError(f"explain: {name} is no function of ulpgrad, and its operands are not an ordinary kernel's")
    calls = dispatch.calls_of(lambda: function(*tensors, **params))
    if not calls:
        raise ArgumentError(f"explain: {name} of these operands calls no kernel: it is a table or plain NumPy")
    cost = [
        op.flops(*arrays, **given) or sum(a.size for a in arrays if a is not None) for op, _, arrays, given in calls
    ]
    op, formats, arrays, given = calls[max(range(len(calls)), key=cost.__getitem__)]
    return explain_call(op, formats, arrays, given)


def explain_call(
    op: Op, formats: tuple[Format | None, ...], arrays: tuple[Any, ...], params: Mapping[str, Any]
) -> Explanation:
    """`explain` for stored arrays."""
    arrays, formats = with_absent(op, arrays), with_absent(op, formats)
    return explain_whole(op, formats, arrays, complete(op, arrays, params))


def explain_whole(
    op: Op, formats: tuple[Format | None, ...], arrays: tuple[Any, ...], filled: Mapping[str, Any]
) -> Explanation:
    """`explain` for stored arrays and parameters of which none is left out."""
    op.takes(formats)
    common = dispatch._promoted(op, formats)
    pinned = dispatch._pins.get().get(op.name)
    request = Request(op, dispatch.device_type(arrays).split(":")[0], common, arrays, dict(filled))
    choices = tuple(registry.explain(request, pinned))
    if not any(c.taken for c in choices):
        registry.select(request, pinned)  # raises, with every reason
    shapes = tuple(None if a is None else tuple(a.shape) for a in arrays)
    return Explanation(op, formats, shapes, filled, choices)


def with_absent(op: Op, operands: tuple[Any, ...]) -> tuple[Any, ...]:
    """Operands with None for those at the end that were left out. ArgumentError if there are too few or too many."""
    samples = [s.arrays for s in op.samples()]
    most = max(map(len, samples))
    least = max((i + 1 for arrays in samples for i, a in enumerate(arrays) if a is not None and
                 all(len(other) > i and other[i] is not None for other in samples)), default=0)  # fmt: skip
    if not least <= len(operands) <= most:
        count = str(least) if least == most else f"{least} to {most}"
        raise ArgumentError(
            f"{op.name}: {len(operands)} operand{'s' * (len(operands) != 1)} given, expected {count}: {op.name}{op.signature}"
        )
    return (*operands, *[None] * (most - len(operands)))


def complete(op: Op, arrays: Sequence[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters of a call as kernels take them: axes not negative, one size for a pair made a pair.

    Those left out are the defaults of the function of that name, else those of the first sample that fits. Raises
    ArgumentError for a parameter that the op does not have, else what the op's check raises.
    """
    samples = [s.params for s in op.samples()]
    like = {name: [s[name] for s in samples if name in s] for s in samples for name in s}
    for name in params:
        if name not in like:
            expected = f"expected {', '.join(like)}" if like else "it has none"
            raise ArgumentError(f"{op.name} has no parameter {name!r}; {expected}")
    ndim = next((a.ndim for a in arrays if a is not None), 0)
    known = {
        name: _as_kernels_take_it(op, name, value, like[name], ndim)
        for name, value in {**_defaults(op, like), **params}.items()
    }
    failure: Exception | None = None
    for sample in samples:
        filled = {**sample, **known}
        try:
            if op.check is not None:
                op.check(*arrays, **filled)
            return filled
        except UlpgradError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _defaults(op: Op, like: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Defaults of the public function's parameters; a None that kernels never see stands for another value."""
    function = getattr(ops, op.name, None)
    if not callable(function):  # a file of functions may have an op's name
        return {}
    return {
        p.name: p.default
        for p in inspect.signature(function).parameters.values()
        if p.name in like
        and p.default is not p.empty
        and (p.default is not None or p.name == "axis" or None in like[p.name])
    }


def _as_kernels_take_it(op: Op, name: str, value: Any, like: Sequence[Any], ndim: int) -> Any:
    if isinstance(like[0], Format):
        return as_format(value)
    several = type(like[0]) is tuple  # and not one with names
    if name == "axis":
        return normalize_axes(op.name, value, ndim) if several else value if value is None else normalize_axis(
            op.name, value, ndim)  # fmt: skip
    return pair(op.name, name, value) if several else value


__all__ = ["Explanation", "complete", "explain", "explain_call", "verdict", "with_absent"]
