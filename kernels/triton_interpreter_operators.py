"""Operators between blocks of one element in Triton's interpreter: one function of NumPy's, and nothing else.

Triton looks at the types of both operands, spreads them to one shape and checks what came out, at every addition. Here operands
of the same plain element go straight to NumPy, which spreads them by itself; what type they have together is looked up. All else
is left to Triton: pointers, narrow floats, operands of two elements, shapes that do not go together. Results are the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import numpy as np

FLOATS: Final = {"fp16": np.dtype("f2"), "fp32": np.dtype("f4"), "fp64": np.dtype("f8")}
INTEGERS: Final = {f"{sign}int{bits}": np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)}
NUMBERS: Final = FLOATS | INTEGERS
BITS: Final = INTEGERS | {"int1": np.dtype(bool)}
OPERATORS: Final[dict[str, tuple[Any, dict[str, Any]]]] = {
    "add": (np.add, NUMBERS), "sub": (np.subtract, NUMBERS), "mul": (np.multiply, NUMBERS), "truediv": (np.divide, FLOATS),
    "and_": (np.bitwise_and, BITS), "or_": (np.bitwise_or, BITS), "xor_": (np.bitwise_xor, BITS),
    "shl": (np.left_shift, INTEGERS), "lshr": (np.right_shift, INTEGERS),
}  # fmt: skip
COMPARISONS: Final = {
    "less_than": np.less, "less_equal": np.less_equal, "greater_than": np.greater, "greater_equal": np.greater_equal,
    "equal": np.equal, "not_equal": np.not_equal,
}  # fmt: skip


def adapt(interpreter: ModuleType, core: ModuleType) -> None:
    """Once in a process, when there is one type of blocks for each element and shape (`triton_interpreter_cost`)."""
    known: dict[tuple[int, int], Any] = {}
    for name, (function, elements) in OPERATORS.items():
        _replace(interpreter, core, name, function, elements, known)
    for name, function in COMPARISONS.items():
        _replace(interpreter, core, name, function, NUMBERS, known, compares=True)
    _add_axes_quickly(interpreter, core)
    _unwrap_quickly(core)


def _together(core: Any, a: Any, b: Any) -> tuple[Any, ...]:
    """Of two types of one element: the type of both together and that of a comparison, or None twice where they do not go
    together; and the two, so that their ids stay theirs."""
    kind = None
    if a.scalar.name == b.scalar.name:
        if not (a.is_block() and b.is_block()):
            kind = b if b.is_block() else a
        elif len(a.shape) == len(b.shape):
            sizes = [(m, n) for m, n in zip(a.shape, b.shape, strict=True)]
            if all(m == n or 1 in (m, n) for m, n in sizes):
                kind = core.block_type(a.scalar, [n if m == 1 else m for m, n in sizes])
    if kind is None:
        return None, None, a, b
    return kind, core.block_type(core.int1, list(kind.shape)) if kind.is_block() else core.int1, a, b


def _replace(
    interpreter: Any, core: Any, name: str, function: Any, elements: dict[str, Any], known: dict[tuple[int, int], Any],
    compares: bool = False,
) -> None:  # fmt: skip
    semantic, tensor, handle = interpreter.TritonSemantic, core.tensor, interpreter.TensorHandle
    plain: Callable[..., Any] = getattr(semantic, name)
    takes_pointers = name in ("add", "sub"), name == "add"

    def quick(self: Any, input: Any, other: Any, *rest: Any, **named: Any) -> Any:
        if input.__class__ is not tensor or input.dtype.name not in elements or self.builder.options.debug:
            return plain(self, input, other, *rest, **named)
        if other.__class__ is not tensor:
            if name == "truediv" or other.__class__ not in (int, float):
                return plain(self, input, other, *rest, **named)
            input, other = self.binary_op_type_checking_impl(input, other, *takes_pointers)
        pair = id(input.type), id(other.type)
        found = known.get(pair)
        if found is None:
            if other.dtype.name not in elements:  # of pointers there are new types all the time
                return plain(self, input, other, *rest, **named)
            found = known[pair] = _together(core, input.type, other.type)
        left, right = input.handle, other.handle
        stored = elements.get(input.dtype.name)
        if found[0] is None or left.data.dtype is not stored or right.data.dtype is not stored:
            return plain(self, input, other, *rest, **named)
        made = object.__new__(handle)
        made.data, made.dtype, made.attr = function(left.data, right.data), left.dtype.scalar, {}
        return tensor(made, found[compares])

    setattr(semantic, name, quick)


def _add_axes_quickly(interpreter: Any, core: Any) -> None:
    semantic, tensor, handle = interpreter.TritonSemantic, core.tensor, interpreter.TensorHandle
    plain = semantic.expand_dims
    known: dict[tuple[int, int], Any] = {}

    def quick(self: Any, input: Any, axis: int) -> Any:
        given = input.type
        found = known.get((id(given), axis))
        if found is None:
            added = plain(self, input, axis)
            if given.is_block():
                known[id(given), axis] = added.type, (*[slice(None)] * axis, None), given
            return added
        kind, index, _ = found
        return tensor(handle(input.handle.data[index], input.handle.dtype.scalar), kind)

    semantic.expand_dims = quick


def _unwrap_quickly(core: Any) -> None:
    """Most of what is asked for its value as a constant is none."""
    plain, constant = core._unwrap_if_constexpr, core.constexpr
    others = {core.tensor, int, float, bool, str, type(None)}

    def quick(value: Any) -> Any:
        kind = value.__class__
        if kind is constant:
            return value.value
        return value if kind in others else plain(value)

    core._unwrap_if_constexpr = quick


__all__ = ["adapt"]
