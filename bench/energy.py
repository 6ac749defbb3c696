"""What arithmetic and memory cost in energy, after the figures that are quoted most, and how they are carried to other formats.

Published for 45 nm at 0.9 V: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, figure
1.1.9. Everything else here is interpolation, not measurement: a power law through the two published widths, in the bits of
the word for integers and in the bits of the significand (the leading one counted) for floats, where the multiplier's array
of partial products is. Between two formats, the geometric mean of their widths. Conversions are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ulpgrad.errors import FormatError
from ulpgrad.formats import Affine, Block, Format, as_format

SOURCE = (
    "M. Horowitz, “Computing’s energy problem (and what we can do about it)”, ISSCC 2014, figure 1.1.9 (45 nm, 0.9 V)"
)
INTEGER_ADD = {8: 0.03, 32: 0.1}  # pJ, by the bits of the word
INTEGER_MULTIPLY = {8: 0.2, 32: 3.1}
FLOAT_ADD = {11: 0.4, 24: 0.9}  # pJ, by the bits of the significand: float16 and float32
FLOAT_MULTIPLY = {11: 1.1, 24: 3.7}
MEMORY = {
    "8 KB cache": 10.0,
    "32 KB cache": 20.0,
    "1 MB cache": 100.0,
    "DRAM": 1300.0,
}  # pJ for 64 bits; DRAM: 1300 to 2600
PLACE = "1 MB cache"  # where the tensors of networks this small lie
SCALE_BITS = 8  # of a block's E8M0 scale


def add(form: Format) -> float:
    """Picojoules of one addition in a format."""
    table, width = (INTEGER_ADD, form.bits) if _whole(form) else (FLOAT_ADD, precision(form))
    return power_law(table, width)


def multiply(a: Format, b: Format) -> float:
    """Picojoules of one multiplication of operands in two formats.

    For blocks: of their elements, and a 32nd of the addition of their scales' exponents. A float with a whole number costs
    what floats of both widths cost.
    """
    per_block = max(power_law(INTEGER_ADD, SCALE_BITS) / f.size if isinstance(f, Block) else 0.0 for f in (a, b))
    a, b = _element(a), _element(b)
    if _whole(a) and _whole(b):
        return power_law(INTEGER_MULTIPLY, math.sqrt(a.bits * b.bits)) + per_block
    return power_law(FLOAT_MULTIPLY, math.sqrt(precision(a) * precision(b))) + per_block


def move(bits: float, place: str = PLACE) -> float:
    """Picojoules to read or write so many bits once."""
    return bits * MEMORY[place] / 64


def stored_bits(form: Format) -> float:
    """Bits of one value as it is kept or sent: the format's, and its share of a block's scale. Padding is not counted."""
    return form.bits_per_value if isinstance(form, Block) else float(_element(form).bits)


def precision(form: Format) -> int:
    """Bits of the significand, the leading one counted; of a whole number, all but the sign."""
    inner = _element(form)
    if inner.kind == "float":
        return int(inner.mantissa_bits) + 1
    return int(inner.bits) - bool(getattr(inner, "signed", False))


def power_law(table: Mapping[int, float], width: float) -> float:
    """The curve a * width^b through two points."""
    (w1, e1), (w2, e2) = table.items()
    return float(e1 * (width / w1) ** (math.log(e2 / e1) / math.log(w2 / w1)))


@dataclass(frozen=True)
class Energy:
    """Microjoules of a training step."""

    arithmetic: float
    memory: float

    @property
    def total(self) -> float:
        return self.arithmetic + self.memory

    def as_data(self) -> dict[str, float]:
        return {"arithmetic": self.arithmetic, "memory": self.memory, "total": self.total}


def _whole(form: Format) -> bool:
    return _element(form).kind in ("fixed", "integer")


def _element(form: Format) -> Any:
    """What is multiplied: a block's element, an affine format's integer, else the format itself."""
    if isinstance(form, Block):
        return form.element
    if isinstance(form, Affine):
        return as_format(form.base)
    if form.kind not in ("float", "fixed", "integer"):
        raise FormatError(f"energy: {form.name}: expected a float, an integer, a fixed-point, affine or block format")
    return form


__all__ = ["SOURCE", "Energy", "add", "move", "multiply", "power_law", "precision", "stored_bits"]
