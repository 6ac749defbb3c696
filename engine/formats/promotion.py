"""Which format a mixed operation computes in: the array API's table (2024.12), with bfloat16 added. NumPy agrees wherever
the standard speaks; where it does not (integer with float) the float wins, as in torch and JAX."""

from __future__ import annotations

from functools import cache

from ulpgrad.errors import FormatError
from ulpgrad.formats import FORMATS, Float, Format, Integer


@cache
def promote(a: Format, b: Format) -> Format:
    """The format both operands convert to. Of two floats it is the one that holds every value of the other; where neither
    does, as with float16 and bfloat16, it is the narrowest of those with a NumPy type or bfloat16 that holds both."""
    if a is b:
        return a
    if a.routed or b.routed:
        return _unlike(a, b)
    if a.kind == "bool":
        return b
    if b.kind == "bool":
        return a
    if isinstance(a, Float) and isinstance(b, Float):
        candidates = (a, b, *(FORMATS[name] for name in ("float16", "bfloat16", "float32", "float64")))
        return next(wide for wide in candidates if isinstance(wide, Float) and _holds(wide, a) and _holds(wide, b))
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


def _holds(wide: Float, narrow: Float) -> bool:
    """Whether a float has every value of another, infinities and NaN included."""
    if wide is narrow:
        return True
    finite = wide.mantissa_bits >= narrow.mantissa_bits and wide.max >= narrow.max and wide.min <= narrow.min
    small = wide.smallest_subnormal <= narrow.smallest_subnormal
    special = (wide.inf_code is not None or narrow.inf_code is None) and (
        wide.nan_code is not None or narrow.nan_code is None
    )
    return finite and small and special


def _unlike(a: Format, b: Format) -> Format:
    """Affine and block tensors count as float32 beside floats; fixed point mixes with nothing by itself."""
    if "fixed" in (a.kind, b.kind) or "integer" in (a.kind, b.kind):
        raise FormatError(
            f"no promotion between {a.name} and {b.name}: convert one of them with .to(format), or state a result with "
            "ulpgrad.fixed"
        )
    plain = [FORMATS["float32"] if form.routed else form for form in (a, b)]
    return promote(*plain)


def result_format(*formats: Format) -> Format:
    """`promote` over any number of formats."""
    first, *rest = formats
    for other in rest:
        first = promote(first, other)
    return first
