"""Which format a mixed operation computes in: the array API's table (2024.12), with bfloat16 added. NumPy agrees wherever
the standard speaks; where it does not (integer with float) the float wins, as in torch and JAX."""

from __future__ import annotations

from functools import cache

from ulpgrad.errors import FormatError
from ulpgrad.formats import FORMATS, Float, Format, Integer


@cache
def promote(a: Format, b: Format) -> Format:
    """The format both operands convert to. Of two floats it is the one that holds every value of the other; where neither
    does, as with float16 and bfloat16, float32 holds both."""
    if a is b:
        return a
    if a.kind == "bool":
        return b
    if b.kind == "bool":
        return a
    if isinstance(a, Float) and isinstance(b, Float):
        for wide, narrow in ((a, b), (b, a)):
            if wide.exponent_bits >= narrow.exponent_bits and wide.mantissa_bits >= narrow.mantissa_bits:
                return wide
        return FORMATS["float32"]
    if a.kind == "float":
        return a
    if b.kind == "float":
        return b
    if not (isinstance(a, Integer) and isinstance(b, Integer)):
        raise FormatError(f"no promotion between {a.name} and {b.name}: convert one of them with .to(format)")
    if a.signed == b.signed:
        return a if a.bits > b.bits else b
    signed, unsigned = (a, b) if a.signed else (b, a)
    if signed.bits > unsigned.bits:
        return signed
    if unsigned.bits == 64:
        raise FormatError(f"no integer holds both {a.name} and {b.name}: convert one of them with .to(format)")
    return FORMATS[f"int{unsigned.bits * 2}"]


def result_format(*formats: Format) -> Format:
    """`promote` over any number of formats."""
    first, *rest = formats
    for other in rest:
        first = promote(first, other)
    return first
