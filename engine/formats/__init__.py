"""Number systems as data: the table of formats, and how they are found by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from ulpgrad.errors import FormatError
from ulpgrad.formats.affine import Affine
from ulpgrad.formats.block import Block, BlockArray
from ulpgrad.formats.fixed import Fixed, Q
from ulpgrad.formats.floating import Float
from ulpgrad.formats.format import Array, Boolean, Family, Format, Integer
from ulpgrad.formats.rounding import RANDOM_BITS, ROUNDINGS, Counts, Random

bool_ = Boolean("bool", 8, np.bool_)
int8 = Integer("int8", 8, np.int8)
int16 = Integer("int16", 16, np.int16)
int32 = Integer("int32", 32, np.int32)
int64 = Integer("int64", 64, np.int64)
uint8 = Integer("uint8", 8, np.uint8, signed=False)
uint16 = Integer("uint16", 16, np.uint16, signed=False)
uint32 = Integer("uint32", 32, np.uint32, signed=False)
uint64 = Integer("uint64", 64, np.uint64, signed=False)
float16 = Float(5, 10, name="float16")
bfloat16 = Float(8, 7, name="bfloat16")
float32 = Float(8, 23, name="float32")
float64 = Float(11, 52, name="float64")

float8_e4m3fn = Float(4, 3, specials="fn", name="float8_e4m3fn")
float8_e5m2 = Float(5, 2, name="float8_e5m2")
float8_e4m3fnuz = Float(4, 3, specials="fnuz", name="float8_e4m3fnuz")
float8_e5m2fnuz = Float(5, 2, specials="fnuz", name="float8_e5m2fnuz")
float8_e4m3 = Float(4, 3, name="float8_e4m3")
float8_e3m4 = Float(3, 4, name="float8_e3m4")
float8_e4m3b11fnuz = Float(4, 3, bias=11, specials="fnuz", name="float8_e4m3b11fnuz")
float8_e8m0fnu = Float(8, 0, bias=127, specials="fnu", name="float8_e8m0fnu")
float6_e3m2fn = Float(3, 2, specials="none", name="float6_e3m2fn")
float6_e2m3fn = Float(2, 3, specials="none", name="float6_e2m3fn")
float4_e2m1fn = Float(2, 1, specials="none", name="float4_e2m1fn")

mxfp8_e4m3 = Block(float8_e4m3fn, name="mxfp8_e4m3")
mxfp8_e5m2 = Block(float8_e5m2, name="mxfp8_e5m2")
mxfp6_e3m2 = Block(float6_e3m2fn, name="mxfp6_e3m2")
mxfp6_e2m3 = Block(float6_e2m3fn, name="mxfp6_e2m3")
mxfp4_e2m1 = Block(float4_e2m1fn, name="mxfp4_e2m1")
mxint8 = Block(Q(1, 6), name="mxint8")

FORMATS: dict[str, Format] = {f.name: f for f in list(globals().values()) if isinstance(f, Format)}
for _form in [f for f in FORMATS.values() if isinstance(f, Block)]:
    for _rule in ("rceil", "even"):
        FORMATS[f"{_form.name}_{_rule}"] = Block(_form.element, rule=_rule, name=f"{_form.name}_{_rule}")

# What ops and kernels list as "all of a kind". The rows are the ones they are tested in; formats made later belong as well.
INTEGERS: Family[Integer] = Family(
    [f for f in FORMATS.values() if isinstance(f, Integer)], lambda form: isinstance(form, Integer)
)
FLOATS: Family[Float] = Family(
    [float16, bfloat16, float32, float64, float8_e4m3fn, float8_e5m2], lambda form: isinstance(form, Float)
)
REALS: Family[Any] = INTEGERS + FLOATS
ALL: Family[Any] = Family([bool_], lambda form: form is bool_) + REALS

of_dtype: dict[Any, Format] = {f.storage: f for f in FORMATS.values() if f.is_native}

_FLOAT = re.compile(r"(u?)e(\d+)m(\d+)(?:b(-?\d+))?(fnuz|fnu|fn|none|p3109f|p3109|)")
_P3109 = re.compile(r"binary(\d+)p(\d+)([su])([ef])")
_FIXED = re.compile(r"(u?)q\(?(-?\d+)[.,] ?(-?\d+)\)?")


def as_format(given: Any) -> Format:
    """A Format from a Format, its name, a NumPy or ml_dtypes dtype, or one of Python's bool, int and float.

    Names of families: "e6m9" (a float of 6 exponent and 9 mantissa bits; "fn", "fnuz", "none" after it as in the table),
    "q7.8" and "uq8.8" (fixed point), "binary8p3se" (IEEE P3109: width, precision, signed or unsigned, extended or finite).
    Raises FormatError for anything else, with the names there are.
    """
    if isinstance(given, Format):
        return given
    if isinstance(given, type) and given in (bool, int, float):
        return {bool: bool_, int: int64, float: _default}[given]
    if isinstance(given, str):
        found = FORMATS.get(given) or _of_family(given)
        if found is not None:
            return found
    try:
        dtype = np.dtype(given)
    except TypeError:
        dtype = None
    if dtype is not None and dtype.newbyteorder("=") in of_dtype:
        return of_dtype[dtype.newbyteorder("=")]
    if dtype is not None and dtype.name in FORMATS and FORMATS[dtype.name].interchange == dtype:
        return FORMATS[dtype.name]
    raise FormatError(
        f"unknown format {given!r}: expected one of {', '.join(FORMATS)}; a name such as e6m9, q7.8 or "
        "binary8p3se; or a NumPy dtype"
    )


def _of_family(name: str) -> Format | None:
    """The format of a name that is not in the table: made from the numbers in it."""
    if match := _FLOAT.fullmatch(name):
        unsigned, e, m, bias, specials = match.groups()
        return Float(int(e), int(m), bias=int(bias) if bias else None, specials=specials or "ieee", signed=not unsigned)
    if match := _P3109.fullmatch(name):
        width, precision, sign, domain = match.groups()
        signed = sign == "s"
        e = int(width) - int(precision) + (not signed)
        return Float(e, int(precision) - 1, specials="p3109" if domain == "e" else "p3109f", signed=signed)
    if match := _FIXED.fullmatch(name.lower()):
        return Fixed(int(match[2]), int(match[3]), signed=not match[1])
    return None


_default = float32


def get_default_dtype() -> Format:
    """The format of tensors made from Python floats: float32 unless `set_default_dtype` chose another."""
    return _default


def set_default_dtype(dtype: Any) -> None:
    """Choose the format of tensors made from Python floats."""
    global _default
    chosen = as_format(dtype)
    if not isinstance(chosen, Float):
        raise FormatError(f"set_default_dtype: expected a floating format, got {chosen.name}")
    _default = chosen
    for heed in _heeding:
        heed()


_heeding: list[Callable[[], None]] = []


def on_default_dtype(heed: Callable[[], None]) -> None:
    """Have a function called whenever another default format was chosen."""
    _heeding.append(heed)


def compute_format(form: Format) -> Format:
    """The format that computes for one with no units of its own: for floats below 32 bits the narrowest native one whose
    sums, products, quotients and roots, rounded once more, are as good as rounded once; else itself.

    That takes twice the bits and two more (Figueroa, "When is double rounding innocuous?", 1995).
    """
    if not isinstance(form, Float) or form.bits >= 32:
        return form
    single = form.carrier == np.float32 or form.is_native
    return float32 if single and 2 * (form.mantissa_bits + 1) + 2 <= float32.mantissa_bits + 1 else float64


def gradient_format(form: Format) -> Format:
    """The format of gradients of a tensor in `form`: a float's own; for fixed point of more than 24 bits float64, for all
    other number systems float32."""
    if form.kind == "float":
        return form
    return float64 if isinstance(form, Fixed) and form.bits > 24 else float32


__all__ = [
    "ALL", "FLOATS", "FORMATS", "INTEGERS", "RANDOM_BITS", "REALS", "ROUNDINGS", "Affine", "Array", "Block", "BlockArray",
    "Boolean", "Counts", "Family", "Fixed", "Float", "Format", "Integer", "Q", "Random", "as_format", "bfloat16", "bool_",
    "compute_format", "float4_e2m1fn", "float6_e2m3fn", "float6_e3m2fn", "float8_e3m4", "float8_e4m3",
    "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "float16", "float32", "float64", "get_default_dtype", "gradient_format", "int16", "int32", "int64", "int8",
    "mxfp4_e2m1", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "of_dtype", "set_default_dtype",
    "uint16", "uint32", "uint64", "uint8",
]  # fmt: skip
