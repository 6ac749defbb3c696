"""Instructions that are expressions over arrays: their text, and what the written functions call.

What NumPy has one operation for is written as that operation; the rest are calls of `arithmetic` and `warp`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx import arithmetic, warp
from ulpgrad.kernels.ptx.text import SIZES, Instruction
from ulpgrad.kernels.ptx.write import Writer, view_of

_TWO = {"add": "({} + {})", "sub": "({} - {})", "and": "({} & {})", "or": "({} | {})", "xor": "({} ^ {})"}


def simple(i: Instruction) -> tuple[str, list[str], str] | None:
    """An instruction that is an expression: its text, the views of operands, that of the result."""
    name, kind = i.name, i.op[-1]
    if not _told(i):
        return None
    if kind == "pred":
        text = {**{k: v for k, v in _TWO.items() if k in ("and", "or", "xor")}, "not": "(~{})"}.get(name)
        return None if text is None else (text, ["b1"] * (len(i.operands) - 1), "b1")
    if kind not in SIZES or "cc" in i.op:
        return None
    if kind in ("f16x2", "bf16x2", "s16x2", "u16x2", "f32x2"):
        return (
            f"paired('{name}', '{kind}', {_after(i)!r}, {', '.join('{}' for _ in i.operands[1:])})",
            [view_of(kind)] * (len(i.operands) - 1),
            view_of(kind),
        )
    view = view_of(kind)
    if kind == "bf16":
        return _small(i)
    is_float = kind[0] == "f"
    count = len(i.operands) - 1
    same = [view] * count
    how = next((o for o in i.op if o in ("rz", "rm", "rp")), "")
    if how and is_float:
        return (f"towards('{name}', '{how}', {', '.join(['{}'] * count)})", same, view) if kind == "f32" else None
    two_words = view[0] + str(2 * SIZES[kind])
    match name:
        case "add" | "sub" if "sat" not in i.op or is_float:
            return _TWO[name], same, view
        case "and" | "or" | "xor":
            return _TWO[name], same, view
        case "not":
            return "(~{})", same, view
        case "neg":
            return "(-{})", same, view
        case "abs":
            return "absolute({})", same, view
        case "mul" if is_float:
            return "({} * {})", same, view
        case "mul" if "wide" in i.op:
            return f"({{}}.astype('{two_words}') * {{}}.astype('{two_words}'))", same, two_words
        case "mul" if "hi" in i.op:
            return "high({}, {})", same, view
        case "mul":
            return "({} * {})", same, view
        case "mad" if "wide" in i.op:
            return (
                f"({{}}.astype('{two_words}') * {{}}.astype('{two_words}') + {{}})",
                [view, view, two_words],
                two_words,
            )
        case "mad" if "hi" in i.op:
            return "(high({}, {}) + {})", same, view
        case "mad" if not is_float:
            return "({} * {} + {})", same, view
        case "fma" | "mad":
            text = "fma64({}, {}, {})" if kind == "f64" else "fma({}, {}, {})"
            return (f"above_zero({text})" if "relu" in i.op else text), same, view
        case "div" if is_float:
            return "({} / {})", same, view
        case "div":
            return "quotient({}, {})", same, view
        case "rem":
            return "remainder({}, {})", same, view
        case "min" | "max" if is_float:
            called = {"min": "least", "max": "greatest"}[name] + ("_or_nan" if "NaN" in i.op else "")
            return f"{called}({{}}, {{}})", same, view
        case "min" | "max":
            text = f"{name}imum({{}}, {{}})"
            return (f"maximum({text}, {view_zero(view)})" if "relu" in i.op else text), same, view
        case "shl":
            return "shifted_left({}, {})", [f"u{SIZES[kind]}", "u4"], f"u{SIZES[kind]}"
        case "shr":
            return "shifted_right({}, {})", [view, "u4"], view
        case "shf":
            return f"funnel({{}}, {{}}, {{}}, {i.op[1] == 'l'}, {'wrap' in i.op})", ["u4"] * 3, "u4"
        case "bfe":
            return "extract({}, {}, {})", [view, "u4", "u4"], view
        case "bfi":
            return "inserted({}, {}, {}, {})", [view, view, "u4", "u4"], view
        case "prmt":
            return "permuted({}, {}, {})", ["u4"] * 3, "u4"
        case "popc":
            return "np.bitwise_count({}).astype('u4')", [view], "u4"
        case "clz":
            return "leading_zeros({})", [view], "u4"
        case "bfind":
            return f"highest_bit({{}}, {'shiftamt' in i.op})", [view], "u4"
        case "brev":
            return "reversed_bits({})", [view], view
        case "copysign":
            return "np.copysign({1}, {0})", same, view
        case "ex2" | "lg2" | "sqrt" | "rsqrt" | "rcp" | "sin" | "cos" | "tanh":
            return f"{name}({{}})", same, view
        case "dp4a":
            return f"byte_dot({{}}, {{}}, {{}}, {i.op[1:3]!r})", ["u4"] * 3, "u4"
    return None


_ROUNDING = {"rn", "rz", "rm", "rp", "ftz", "sat"}
_SOME = {"rn", "ftz", "approx", "full"}
_MODIFIERS: dict[str, set[str]] = {
    "add": _ROUNDING, "sub": _ROUNDING, "mul": _ROUNDING | {"lo", "hi", "wide"}, "mad": _ROUNDING | {"lo", "hi", "wide"},
    "fma": _ROUNDING | {"relu"}, "min": {"NaN", "ftz", "relu"}, "max": {"NaN", "ftz", "relu"}, "neg": {"ftz"}, "abs": {"ftz"},
    "bfind": {"shiftamt"}, "shf": {"l", "r", "wrap", "clamp"}, "dp4a": {"s32", "u32"},
    **dict.fromkeys(("div", "ex2", "lg2", "sqrt", "rsqrt", "rcp", "sin", "cos", "tanh"), _SOME),
}  # fmt: skip
_OPERANDS = {"min": 2, "max": 2}  # of which there may be more, elsewhere


def _told(i: Instruction) -> bool:
    """Whether all that an instruction says of how it is done is heeded here."""
    return set(i.op[1:-1]) <= _MODIFIERS.get(i.name, set()) and len(i.operands) - 1 == _OPERANDS.get(
        i.name, len(i.operands) - 1
    )


def _after(i: Instruction) -> tuple[str, ...]:
    """What is done to the values of an instruction, or with NaN in them."""
    return tuple(o for o in i.op[1:-1] if o in ("NaN", "relu", "sat"))


def view_zero(view: str) -> str:
    return f"np.dtype('{view}').type(0)"


def _small(i: Instruction) -> tuple[str, list[str], str] | None:
    """bfloat16: as float32, rounded once."""
    wide = {
        "add": "{} + {}", "sub": "{} - {}", "mul": "{} * {}", "neg": "-{}", "abs": "absolute({})",
        "min": "least_or_nan({}, {})" if "NaN" in i.op else "least({}, {})",
        "max": "greatest_or_nan({}, {})" if "NaN" in i.op else "greatest({}, {})",
        "fma": "fma_wide({}, {}, {})", "ex2": "ex2({})", "tanh": "tanh({})",
    }.get(i.name)  # fmt: skip
    if wide is None or {"rz", "rm", "rp"} & set(i.op):
        return None
    if "sat" in i.op or "relu" in i.op:
        wide = f"{'saturated' if 'sat' in i.op else 'above_zero'}({wide})"
    count = len(i.operands) - 1
    return f"to_bfloat16({wide.format(*['widened({})'] * count)})", ["u2"] * count, "u2"


_KINDS = (
    "e4m3x2",
    "e5m2x2",
    "f16x2",
    "bf16x2",
    "tf32",
    "bf16",
    "f16",
    "f32",
    "f64",
    "s8",
    "u8",
    "s16",
    "u16",
    "s32",
    "u32",
    "s64",
    "u64",
)


_RELU = ("f16", "bf16", "f16x2", "bf16x2", "e4m3x2", "e5m2x2")


def converted(i: Instruction, block: Writer) -> tuple[str, str]:
    """cvt: the value and its view."""
    kinds = [o for o in i.op if o in _KINDS]
    to, source = kinds[-2], kinds[-1]
    how = next((o for o in i.op if o in ("rn", "rz", "rm", "rp", "rna", "rni", "rzi", "rmi", "rpi")), "")
    known = {*_KINDS, how, "relu", "ftz", "sat", *(("satfinite",) if to in ("e4m3x2", "e5m2x2") else ())}
    if not set(i.op[1:]) <= known or ("relu" in i.op and to not in _RELU):
        raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
    if to in ("f16x2", "bf16x2", "e4m3x2", "e5m2x2") or source in ("e4m3x2", "e5m2x2"):
        given = [block.read(o, view_of(source) if source in SIZES else "u2") for o in i.operands[1:]]
        return f"pairs('{to}', '{source}', '{how}', {'relu' in i.op}, {', '.join(given)})", {
            "f16x2": "u4",
            "bf16x2": "u4",
        }.get(to, "u2")
    value = block.read(i.operands[1], view_of(source))
    if source in ("s64", "u64") and to[0] in "fb":
        value = f"to_odd({value})"  # so that rounding it again is rounding it once
        source = "f64"
        if to == "f64":
            return f"from_long({block.read(i.operands[1], view_of(kinds[-1]))}, '{how or 'rn'}')", "f8"
    if source == "bf16":
        value = f"widened({value})"
    if source == "f32" and "ftz" in i.op:
        value = f"flushed({value})"
    to_float, from_float = to[0] == "f" or to in ("bf16", "tf32"), source[0] == "f" or source == "bf16"
    if to == "tf32":
        if how != "rna":
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
        return f"to_tf32({value})", "u4"
    if to == "bf16":
        if not from_float:
            value = f"{value}.astype('f8')"
        if "relu" in i.op:
            value = f"above_zero({value})"
        return f"to_bfloat16({value}, '{how or 'rn'}')", "u2"
    view = view_of(to)
    if to_float:
        if how in ("rni", "rzi", "rmi", "rpi"):
            value = f"whole({value}, '{how}').astype('{view}')"
        elif how in ("rz", "rm", "rp") and (not from_float or SIZES[to] < SIZES[source]):
            value = f"directed({value}, np.dtype('{view}').type, '{how}')"
        else:
            value = f"{value}.astype('{view}')"
        if "relu" in i.op:
            value = f"above_zero({value})"
        if "sat" in i.op:
            value = f"saturated({value})"
        return value, view
    if from_float:
        return f"to_integer({value}, '{how}', '{view}', {'64' in source})", view
    if "sat" in i.op:
        return f"saturating({value}, '{view}')", view
    return f"{value}.astype('{view}')", view


# What the written functions call.


def pairs(to: str, source: str, how: str, relu: bool, *given: Any) -> Any:
    """Conversions between pairs: the first operand becomes the upper half."""
    if source in ("e4m3x2", "e5m2x2"):
        codes = given[0]
        halves = [arithmetic.from_eight((codes >> np.uint16(8 * n)).astype(np.uint8), source[:4]) for n in range(2)]
        words = [h.astype(np.float16).view(np.uint16).astype(np.uint32) for h in halves]
        return words[0] | words[1] << np.uint32(16)
    if source == "f16x2":
        word = given[0]
        upper, lower = (
            (word >> np.uint32(16 * n)).astype(np.uint16).view(np.float16).astype(np.float32) for n in (1, 0)
        )
    else:
        upper, lower = given
    if relu:
        upper, lower = (arithmetic.above_zero(v) for v in (upper, lower))
    match to:
        case "f16x2":
            narrow = [
                arithmetic.directed(v, np.float16, how) if how == "rz" else v.astype(np.float16) for v in (lower, upper)
            ]
            words = [np.asarray(v).view(np.uint16).astype(np.uint32) for v in narrow]
            return words[0] | words[1] << np.uint32(16)
        case "bf16x2":
            words = [arithmetic.to_bfloat16(v, how).astype(np.uint32) for v in (lower, upper)]
            return words[0] | words[1] << np.uint32(16)
    low, high = (arithmetic.to_eight(v, to[:4]).astype(np.uint16) for v in (lower, upper))
    return low | high << np.uint16(8)


def paired(name: str, kind: str, after: tuple[str, ...], *given: Any) -> Any:
    """An operation on both halves of words. `after`: "NaN", "relu", "sat", where the instruction says so."""
    half = "u4" if kind == "f32x2" else "u2"
    bits, word = (32, "u8") if kind == "f32x2" else (16, "u4")
    out = np.dtype(word).type(0)
    plain = {"f16x2": "f2", "f32x2": "f4", "s16x2": "i2", "u16x2": "u2", "bf16x2": "u2"}[kind]
    for n in range(2):
        values = [(g >> np.dtype(word).type(bits * n)).astype(half).view(plain) for g in given]
        if kind == "bf16x2":
            values = [arithmetic.widened(v) for v in values]
        found = _ONES[
            name + "NaN" if "NaN" in after else f"{name}_wide" if (name, kind) == ("fma", "bf16x2") else name
        ](*values)
        if "relu" in after:
            found = arithmetic.above_zero(found)
        if "sat" in after:
            found = arithmetic.saturated(found)
        if kind == "bf16x2":
            found = arithmetic.to_bfloat16(found)
        out = out | np.asarray(found).view(half).astype(word) << np.dtype(word).type(bits * n)
    return out


_ONES: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "neg": np.negative, "abs": np.abs, "fma": arithmetic.fma,
    "fma_wide": arithmetic.fma_wide, "minNaN": arithmetic.least_or_nan, "maxNaN": arithmetic.greatest_or_nan,
    "min": lambda a, b: arithmetic.least(a, b) if a.dtype.kind == "f" else np.minimum(a, b),
    "max": lambda a, b: arithmetic.greatest(a, b) if a.dtype.kind == "f" else np.maximum(a, b),
}  # fmt: skip


def _by(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function in float64, rounded once."""
    return lambda x: function(x.astype(np.float64)).astype(x.dtype)


NAMES: dict[str, Any] = {
    "np": np, "where": np.where, "absolute": np.abs, "minimum": np.minimum, "maximum": np.maximum, "pairs": pairs,
    "paired": paired, "ex2": _by(np.exp2), "lg2": _by(np.log2), "sqrt": np.sqrt, "rsqrt": _by(lambda x: 1 / np.sqrt(x)),
    "rcp": _by(lambda x: 1 / x), "sin": _by(np.sin), "cos": _by(np.cos), "tanh": _by(np.tanh),
    "fma_wide": arithmetic.fma_wide, "shuffled": warp.shuffled, "reduced": warp.reduced,
    "voted": warp.voted,
    "multiplied": warp.multiplied,
    **{f.__name__: f for f in (
        arithmetic.fma, arithmetic.fma64, arithmetic.flushed, arithmetic.saturated, arithmetic.least, arithmetic.greatest,
        arithmetic.least_or_nan, arithmetic.greatest_or_nan, arithmetic.quotient, arithmetic.remainder, arithmetic.high,
        arithmetic.shifted_left, arithmetic.shifted_right, arithmetic.funnel, arithmetic.extract, arithmetic.inserted,
        arithmetic.permuted, arithmetic.any_logic, arithmetic.reversed_bits, arithmetic.leading_zeros, arithmetic.highest_bit,
        arithmetic.byte_dot, arithmetic.widened, arithmetic.to_bfloat16, arithmetic.to_tf32, arithmetic.whole,
        arithmetic.above_zero, arithmetic.towards, arithmetic.to_odd, arithmetic.from_long,
        arithmetic.to_integer, arithmetic.directed, arithmetic.saturating,
    )},
}  # fmt: skip
