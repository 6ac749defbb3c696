"""What Triton's interpreter works out again at every operation, and need not: three quarters of its time for small blocks.

Results are the same, bit for bit; only a reduction by a function of the kernel's has another order, as it has on a GPU. Types,
decisions that hang on types, and the patched language are kept for the process; Triton's compiler is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

_ABSENT = object()


CAST_AS_ARRAYS = {"int1", "fp32", "fp64", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))}
MOST = 4096  # numbers beside blocks that are kept


def adapt(interpreter: ModuleType, core: ModuleType) -> None:
    """Once in a process, before its first launch in the interpreter."""
    _make_types_once(interpreter, core)
    _decide_by_type_once(interpreter)
    _join_operands_quickly(interpreter, core)
    _patch_language_once(interpreter)
    interpreter.ReduceOps.generic_reduce = _reduce_in_pairs


def _make_types_once(interpreter: Any, core: Any) -> None:
    """There is one type of blocks for each element and shape, which knows what a tensor of it is asked for."""
    block, plain_init, plain_ir, plain_numpy = (
        core.block_type, core.block_type.__init__, core.block_type.to_ir, interpreter._get_np_dtype
    )  # fmt: skip
    known: dict[tuple[Any, ...], Any] = {}
    scalar = core.tuple([]), core.constexpr(1)

    def new(cls: Any, element_ty: Any, shape: Any) -> Any:
        space = getattr(element_ty, "address_space", None)  # of a pointer, whose name does not tell it
        key = (element_ty.name, space, *[n.value if isinstance(n, core.constexpr) else n for n in shape])
        found = known.get(key)
        if found is None:
            found = object.__new__(cls)
            plain_init(found, element_ty, shape)
            sizes = list(found.shape)
            found.of_tensors = core.tuple([core.constexpr(n) for n in sizes]), core.constexpr(found.numel)
            known[key] = found
        return found

    def init(self: Any, handle: Any, type: Any) -> None:
        self.handle, self.type, self.dtype = handle, type, type.scalar
        self.shape, self.numel = type.of_tensors if type.is_block() else scalar

    def to_ir(self: Any, builder: Any) -> Any:
        return self if builder is interpreter.interpreter_builder else plain_ir(self, builder)

    def numpy_type(kind: Any) -> Any:
        found = kind.__dict__.get("of_numpy")
        if found is None:
            found = kind.of_numpy = plain_numpy(kind)
        return found

    block.__new__, block.__init__ = new, lambda self, *_, **__: None
    block.to_ir, core.tensor.__init__, interpreter._get_np_dtype = to_ir, init, numpy_type


def _decide_by_type_once(interpreter: Any) -> None:
    """What is converted to what hangs on types alone. Overflow is not looked for: without Triton's debugging nothing would be
    said of it."""
    semantic = interpreter.TritonSemantic
    cast, common, overflow = semantic.cast, semantic.computation_type_impl, semantic.binary_op_sanitize_overflow_impl
    known: dict[tuple[Any, ...], Any] = {}

    def quick_cast(self: Any, input: Any, dst_ty: Any, fp_downcast_rounding: Any = None) -> Any:
        source, target = input.dtype, dst_ty.scalar
        if source is target:
            return input
        plain = source.name in CAST_AS_ARRAYS and target.name in CAST_AS_ARRAYS and target.name != "int1"
        if fp_downcast_rounding is not None or not plain:
            return cast(self, input, dst_ty, fp_downcast_rounding)
        data = input.handle.data.astype(interpreter._get_np_dtype(target))
        kind = input.type.with_element_ty(target) if input.type.is_block() else target
        return self.tensor(interpreter.TensorHandle(data, target), kind)

    def quick_common(self: Any, a_ty: Any, a_is_scalar: Any, b_ty: Any, b_is_scalar: Any, div_or_mod: Any) -> Any:
        key = a_ty.name, a_is_scalar, b_ty.name, b_is_scalar, div_or_mod
        found = known.get(key)
        if found is None:
            found = known[key] = common(self, a_ty, a_is_scalar, b_ty, b_is_scalar, div_or_mod)
        return found

    def quick_overflow(self: Any, *given: Any) -> None:
        if self.builder.options.debug:
            overflow(self, *given)

    semantic.cast, semantic.computation_type_impl = quick_cast, quick_common
    semantic.binary_op_sanitize_overflow_impl = quick_overflow


def _join_operands_quickly(interpreter: Any, core: Any) -> None:
    """Operands of one type are left as they are, a number beside a block is spread over it once, and without copies."""
    semantic, tensor = interpreter.TritonSemantic, core.tensor
    operands, broadcast = semantic.binary_op_type_checking_impl, semantic.broadcast_impl_value
    known: dict[tuple[Any, ...], Any] = {}

    def quick_operands(
        self: Any, lhs: Any, rhs: Any, allow_lhs_ptr: Any = False, allow_rhs_ptr: Any = False,
        arithmetic_check: Any = True, div_or_mod: Any = False,
    ) -> Any:  # fmt: skip
        rules = allow_lhs_ptr, allow_rhs_ptr, arithmetic_check, div_or_mod
        if lhs.__class__ is tensor and rhs.__class__ is tensor:
            alike = lhs.type is rhs.type and arithmetic_check and not div_or_mod and not lhs.dtype.is_ptr()
            return (lhs, rhs) if alike else operands(self, lhs, rhs, *rules)
        if lhs.__class__ is not tensor or rhs.__class__ not in (int, float) or rhs != rhs:
            return operands(self, lhs, rhs, *rules)
        key = lhs.type.name, rhs.__class__, rhs or str(rhs), *rules  # -0.0 is not 0.0
        spread = known.get(key)
        if spread is not None:
            return lhs, spread
        joined = operands(self, lhs, rhs, *rules)
        if joined[0] is lhs:
            if len(known) == MOST:
                known.clear()
            known[key] = joined[1]
        return joined

    def quick_broadcast(self: Any, lhs: Any, rhs: Any) -> Any:
        a, b = lhs.type, rhs.type
        alike = a is b or (a.is_block() and b.is_block() and a.shape.values == b.shape.values)
        return (lhs, rhs) if alike else broadcast(self, lhs, rhs)

    def quick_splat(self: Any, kind: Any, value: Any) -> Any:
        shape, data = (
            tuple(kind.shape.values),
            value.data.reshape(-1)[:1].astype(interpreter._get_np_dtype(value.dtype)),
        )
        spread = np.ndarray(shape, data.dtype, data, strides=(0,) * len(shape))
        return interpreter.TensorHandle(spread, value.dtype.scalar)

    semantic.binary_op_type_checking_impl, semantic.broadcast_impl_value = quick_operands, quick_broadcast
    interpreter.InterpreterBuilder.create_splat = quick_splat


class _Scope:
    """What a patch of the language set, to be undone and done again."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self.changes: list[tuple[Any, str, Any, Any]] = []
        self.restore = undo

    def set_attr(self, obj: Any, name: str, value: Any) -> None:
        self.changes.append((obj, name, getattr(obj, name, _ABSENT), value))
        setattr(obj, name, value)

    def again(self) -> None:
        for obj, name, _, value in self.changes:
            setattr(obj, name, value)

    def undo(self) -> None:
        for obj, name, before, _ in reversed(self.changes):
            if before is _ABSENT:
                delattr(obj, name)
            else:
                setattr(obj, name, before)


def _patch_language_once(interpreter: Any) -> None:
    """The language is looked through when it is patched for the first time, and patched once a launch: not at each call of a
    function in a kernel."""
    patch: Callable[[Any], Any] = interpreter._patch_lang
    core = interpreter.tl.core
    guard = core.to_tensor.__code__  # what `core.builtin` puts around functions: it looks for `_semantic`
    kinds: dict[Any, int] = {}  # of functions: which modules of the language they see
    known: dict[tuple[int, ...], _Scope] = {}  # by what was patched, one after the other
    active: dict[int, _Scope] = {}

    def undo() -> None:
        for scope in reversed(active.values()):
            scope.undo()
        active.clear()

    def patch_attribute(obj: Any, name: str, member: Any, builder: Any, scope: Any) -> None:
        function = member.__wrapped__ if getattr(member, "__code__", None) is guard else member
        semantic = interpreter.interpreter_semantic

        def call(*args: Any, **named: Any) -> Any:
            named["_semantic"] = semantic
            return function(*args, **named)

        scope.set_attr(obj, name, call)

    def patch_once(function: Any) -> _Scope:
        kind = kinds.get(function)
        if kind is None:
            modules = list(function.__globals__.values())
            kind = kinds[function] = sum(
                1 << i for i, m in enumerate((interpreter.tl, core)) if any(v is m for v in modules)
            )
        if kind not in active:
            order = (*active, kind)
            if order in known:
                known[order].again()
            else:
                known[order] = patch(function)
            active[kind] = known[order]
        return active[kind]

    interpreter._LangPatchScope = lambda: _Scope(undo)
    interpreter._patch_attr, interpreter._patch_lang = patch_attribute, patch_once


def _reduce_in_pairs(self: Any, input: Any) -> list[Any]:
    """A reduction by a function of the kernel's: neighbours are joined until one is left, all pairs at once. Triton's own goes
    through the values one after the other."""
    parts = [
        (part.handle.data if self.axis is not None else part.handle.data.reshape(-1), part.dtype) for part in input
    ]
    axis = 0 if self.axis is None else self.axis
    values = [np.moveaxis(data, axis, -1) for data, _ in parts]
    while values[0].shape[-1] > 1:
        pairs = [self.to_tensor(v[..., i::2], kind) for i in (0, 1) for v, (_, kind) in zip(values, parts, strict=True)]
        joined = self.combine_fn.fn(*pairs)
        values = [one.handle.data for one in (joined if isinstance(joined, tuple) else (joined,))]
    found = [v[..., 0] for v in values]
    if self.keep_dims:
        every = tuple(range(input[0].handle.data.ndim))
        found = [np.expand_dims(v, axis if self.axis is not None else every) for v in found]
    return [self.to_tensor(v, kind) for v, (_, kind) in zip(found, parts, strict=True)]


__all__ = ["adapt"]
