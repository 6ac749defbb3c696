"""Cells: an op in a format at a size. Which there are, what they are called, and whether they fit this machine's memory."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulpgrad.bench import machine, shapes
from ulpgrad.device import CPU, as_device
from ulpgrad.errors import ArgumentError, FormatError, UlpgradError
from ulpgrad.formats import FORMATS, Affine, Block, Format, as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.spec import Op

OVERHEAD = (
    6  # operands and results as they are, in float64, as the reference's temporaries, and in the peers' own arrays
)
CALIBRATED = {
    "affine_int8": "int8",
    "affine_uint8": "uint8",
}  # affine integers, each operand on the scale of its values
BLOCK = re.compile(r"block(\d+)\(([^,()]+), *(\w+)\)")  # as blocks of other sizes call themselves
AFFINE = re.compile(r"affine\((\w+), *([^,()]+), *(-?\d+)\)")  # one scale and zero point for all operands
CGROUP = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")


@dataclass(frozen=True)
class Cell:
    """What contenders are compared in. `size`: None is the op's standard one."""

    op: str
    format: str
    size: int | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """As a person reads it."""
        return " ".join(filter(None, (self.op, self.format, "" if self.size is None else str(self.size))))


def choose(ops: str, formats: str, sizes: Sequence[int], device: str) -> list[Cell]:
    """Cells of all ops named (all there are where none is), in each format and size.

    Formats: names with commas between them, as `named` takes them, or "affine_int8" and "affine_uint8", whose scales come from
    the values; "all" for each that the op takes among those it is tested in, nothing for the op's standard one. An op whose
    standard problem has no size comes once. Raises the typed error of what is unknown, with the nearest names.
    """
    if as_device(device) != CPU:
        raise ArgumentError(
            f"--device {device}: these benchmarks measure the CPU; on a GPU `ulpgrad ladder OP --device cuda` climbs an op's "
            "kernels, and `make gpu-check` measures them beside cuBLAS and cuDNN"
        )
    chosen = [_op(name) for name in _names(ops)] or list(registry.ops().values())
    forms = None if formats in ("", "all") else [_format(name) for name in _names(formats)]
    cells = []
    for op in chosen:
        own = [form.name for form in op.formats] if formats == "all" else forms or [shapes.default_format(op).name]
        for form in own:
            counted = shapes.shape_of(op)
            for size in (sizes or [counted.size]) if counted else [None]:
                cells.append(Cell(op.name, form, size, device))
    return list(dict.fromkeys(cells))


def named(name: str) -> Format:
    """The format of that name: of any kind, blocks of other sizes and affine integers as they call themselves. FormatError for
    another name, and for a number system that cannot be."""
    try:
        if match := BLOCK.fullmatch(name):
            return Block(as_format(match[2]), int(match[1]), match[3])
        if match := AFFINE.fullmatch(name):
            return Affine(match[1], float(match[2]), int(match[3]))
    except ValueError as error:
        raise FormatError(f"{name}: {error}") from None
    return as_format(name)


def known(name: str) -> Format:
    """As `named`, for what a user typed: a FormatError names the nearest ones."""
    try:
        return named(name)
    except UlpgradError as error:
        if not str(error).startswith("unknown format"):
            raise
        raise FormatError(
            f"there is no format {name!r}; did you mean {nearest(name, [*FORMATS, *CALIBRATED])}? "
            "A float of any size is e6m9, fixed point q7.8, P3109 binary8p3se; `ulpgrad formats` shows all"
        ) from None


def needed(cell: Cell) -> int:
    """Bytes that a cell takes at most: those of its standard problem, with each operand carried to the size asked for."""
    op = registry.find(cell.op)
    counted = shapes.shape_of(op)
    if counted is None or cell.size is None:
        return 0
    base, twice = (_sizes(op, n) for n in (counted.size, 2 * counted.size))
    factor = cell.size / counted.size
    grown = (b * factor ** math.log2(max(t, 1) / max(b, 1)) for b, t in zip(base, twice, strict=True))
    return int(OVERHEAD * 8 * sum(grown))


def available() -> int | None:
    """Bytes of memory that are free for this process; None where the system does not tell."""
    found = []
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        found.append(int(lines["MemAvailable"].split()[0]) << 10)
    except (OSError, KeyError, ValueError):
        found += [size] if (size := machine.memory()) else []
    try:
        limit, used = (int(path.read_text()) for path in CGROUP)
        found.append(limit - used)
    except (OSError, ValueError):
        pass  # no limit of a group of processes
    return min(found, default=None)


def too_large(cell: Cell) -> str | None:
    """Why a cell is not tried, or None."""
    counted = shapes.shape_of(registry.find(cell.op))
    if counted is None or cell.size is None or cell.size <= counted.size:
        return None
    want, free = needed(cell), available()
    if free is None or want <= free:
        return None
    return f"about {readable(want)} are needed, {readable(free)} are free; choose a size below {cell.size}"


def readable(size: float) -> str:
    """Bytes with a unit: "1.5 GiB"."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:,.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.3g} {unit}"


def nearest(given: str, known: Iterable[str]) -> str:
    """The names most like one that is not known, or the first few."""
    names = list(known)
    return ", ".join(difflib.get_close_matches(given, names, 3, 0.5) or names[:8])


def _sizes(op: Op, n: int) -> list[int]:
    """Values of each operand, and as many again as the largest for results."""
    arrays = [a.size for a in shapes.sample(op, n, 0).arrays if a is not None]
    return [*arrays, max(arrays, default=n)]


def _names(text: str) -> list[str]:
    """What stands between commas, those in parentheses aside."""
    return [name for part in re.split(r",(?![^()]*\))", text) if (name := part.strip())]


def _op(name: str) -> Op:
    known = registry.ops()
    if name not in known:
        raise ArgumentError(
            f"there is no op {name!r}; did you mean {nearest(name, known)}? `ulpgrad bench --list` shows all"
        )
    return known[name]


def _format(name: str) -> str:
    """The name that a format goes by. FormatError with the nearest ones, or with what is wrong with its numbers."""
    return name if name in CALIBRATED else known(name).name


__all__ = ["CALIBRATED", "Cell", "available", "choose", "known", "named", "nearest", "needed", "readable", "too_large"]
