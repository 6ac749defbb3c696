"""`ulpgrad formats`: every number system side by side, or one of them in full: limits, codes, and what becomes of a value."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ulpgrad.cli.screen import console, facts, table, write_json
from ulpgrad.errors import ArgumentError
from ulpgrad.formats import FORMATS, Affine, Block, Fixed, Float, Format, Integer, Random, as_format
from ulpgrad.formats.floating import SPECIALS
from ulpgrad.formats.rounding import ROUNDINGS

LISTED_BITS = 8  # formats up to this size are shown code by code, eight to a line
BEYOND = {"ieee": "infinities, NaN", "fn": "NaN", "fnuz": "NaN in place of -0", "none": "clamps", "fnu": "NaN; no sign, no zero",
          "p3109": "infinities, NaN in place of -0", "p3109f": "NaN in place of -0"}  # fmt: skip
COLUMNS = (
    "format",
    "bits",
    "exponent",
    "fraction",
    "largest",
    "smallest normal",
    "smallest",
    "epsilon",
    "binades",
    "dB",
    "beyond",
)


def run(name: str | None, at: list[float], json: Path | None) -> None:
    if name is None:
        if at:
            raise ArgumentError(
                "--at shows a value in one format: name it, as in `ulpgrad formats float8_e4m3fn --at 3.3`"
            )
        rows = [facts_of(form) for form in _listed()]
        console().print(table("Number systems", COLUMNS, [_row(r) for r in rows], right=COLUMNS[1:-1]))
        console().print(
            "Also: e6m9, q7.8, uq8.8, binary8p3se and their like; _rceil and _even after a name beginning with mx."
        )
        write_json(json, rows)
        return
    form = as_format(name)
    data = facts_of(form)
    show(form, data)
    if at:
        data["values"] = [rounded(form, x) for x in at]
        show_values(form, data["values"])
    write_json(json, data)


def _listed() -> list[Format]:
    """The table of formats, one row for a block format whatever its scale rule, and some of each family."""
    chosen = [f for f in FORMATS.values() if not (isinstance(f, Block) and f.rule != "floor") and f.kind != "bool"]
    return [*chosen, *(as_format(n) for n in ("e6m9", "binary8p3se", "q7.8", "q3.4", "uq8.8"))]


def facts_of(form: Format) -> dict[str, Any]:
    """What a format is, as plain numbers."""
    data: dict[str, Any] = {"name": form.name, "kind": form.kind, "bits": form.bits}
    if isinstance(form, Float):
        data |= {"exponent_bits": form.exponent_bits, "fraction_bits": form.mantissa_bits, "bias": form.bias,
                 "largest": form.max, "smallest_normal": form.smallest_normal, "smallest": form.smallest_subnormal,
                 "epsilon": form.eps, "binades": form.binades, "decibels": form.decibels, "beyond": BEYOND[form.specials],
                 "topmost codes": SPECIALS[form.specials]}  # fmt: skip
    elif isinstance(form, Fixed):
        data |= {"exponent_bits": 0, "fraction_bits": form.fraction_bits, "largest": form.max, "least": form.min,
                 "smallest_normal": form.scale, "smallest": form.scale, "epsilon": form.eps, "binades": form.binades,
                 "decibels": form.decibels, "beyond": "saturates, wraps or raises"}  # fmt: skip
    elif isinstance(form, Block):
        element = facts_of(form.element)
        data |= {k: element[k] for k in ("exponent_bits", "fraction_bits", "epsilon")}
        data |= {"bits": form.bits_per_value, "largest": form.max, "smallest": math.ldexp(element["smallest"], -127),
                 "smallest_normal": math.ldexp(element["smallest_normal"], -127), "element": form.element.name,
                 "block": form.size, "rule": form.rule, "beyond": "NaN for the whole block"}  # fmt: skip
        data["binades"] = math.log2(data["largest"]) - math.log2(data["smallest"])
        data["decibels"] = 20 * math.log10(2) * data["binades"]
    elif isinstance(form, Integer):
        data |= {"exponent_bits": 0, "fraction_bits": 0, "largest": form.max, "smallest_normal": 1, "smallest": 1, "epsilon": 1,
                 "binades": math.log2(form.max), "decibels": 20 * math.log10(form.max), "beyond": "wraps"}  # fmt: skip
    elif isinstance(form, Affine):
        data |= {"largest": form.max, "least": form.min, "beyond": "saturates"}
    return data


def _number(x: Any) -> str:
    return "-" if x is None else str(x) if isinstance(x, int) and abs(x) < 10**9 else f"{x:.6g}"


def _row(data: dict[str, Any]) -> list[str]:
    keys = ("bits", "exponent_bits", "fraction_bits", "largest", "smallest_normal", "smallest", "epsilon")
    ranges = [f"{data[k]:.1f}" if k in data else "-" for k in ("binades", "decibels")]
    return [data["name"], *(_number(data.get(k)) for k in keys), *ranges, data["beyond"]]


def show(form: Format, data: dict[str, Any]) -> None:
    """Print the facts, and every code where there are few."""
    names = {"name": "format", "exponent_bits": "exponent bits", "fraction_bits": "fraction bits", "least": "most negative",
             "smallest_normal": "smallest normal", "smallest": "smallest positive", "epsilon": "epsilon (1 to the next)",
             "binades": "dynamic range, binades", "decibels": "dynamic range, dB", "beyond": "beyond finite numbers"}  # fmt: skip
    console().print(
        facts(form.name, [(names.get(k, k), v if isinstance(v, str) else _number(v)) for k, v in data.items()])
    )
    if isinstance(form, (Float, Fixed)) and form.bits <= LISTED_BITS:
        values = form.values()
        width = min(8, len(values))
        lines = [[f"{i:#04x}", *(_code(v) for v in values[i : i + width])] for i in range(0, len(values), width)]
        heads = ["code", *(f"+{i}" for i in range(width))]
        console().print(table("Every code", heads, lines, right=heads[1:]))


def _code(value: float) -> str:
    return f"{value:.6g}"


def rounded(form: Format, x: float) -> dict[str, Any]:
    """What becomes of a value in every mode, the distance of neighbours there, and the code it is stored as."""
    given = np.array([x])
    out: dict[str, Any] = {"value": x}
    if not isinstance(form, (Float, Fixed)):
        out["nearest_even"] = float(form.exact(form.encode(given))[0])
        return out
    out["spacing"] = float(form.spacing(given)[0])
    for mode in ROUNDINGS:
        if mode == "stochastic":
            continue
        out[mode] = float(form.exact(form.encode(given, mode))[0])
    words = np.arange(256, dtype=np.uint32) << np.uint32(24)
    drawn = form.exact(form.encode(np.full(256, x), "stochastic", random=Random(words, 8)))
    out["stochastic"] = {_code(v): int(n) / 256 for v, n in zip(*np.unique(drawn, return_counts=True), strict=True)}
    stored = form.encode(given)
    out["code"] = f"{int(stored.view(f'u{stored.dtype.itemsize}')[0]):#0{2 + -(-form.bits // 4)}x}"
    return out


def show_values(form: Format, values: list[dict[str, Any]]) -> None:
    """Print what becomes of values: a column for each mode."""
    columns = list(dict.fromkeys(k for v in values for k in v))
    rows = []
    for v in values:
        cells = []
        for c in columns:
            cell = v.get(c, "-")
            text = ", ".join(f"{k} ({p:.0%})" for k, p in cell.items()) if isinstance(cell, dict) else cell
            cells.append(text if isinstance(text, str) else f"{text:.7g}")
        rows.append(cells)
    console().print(table(f"Values in {form.name}", columns, rows, right=columns))
