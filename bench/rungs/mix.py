"""The instructions of a rung's busiest inner loop, read from the extension that runs, with objdump.

A loop is busiest if one turn of it does the most arithmetic. What its instructions say: how many loads feed how many
multiply-adds, how wide the vectors are, and what else is in the way.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from ulpgrad.bench.rungs import source
from ulpgrad.kernels import native
from ulpgrad.kernels.registry import Rung

FUNCTION = re.compile(r"^void (\w+)\(const \w+& \w+\)", re.MULTILINE)
BYTES = {"zmm": 64, "ymm": 32, "xmm": 16}
FUSED = re.compile(r"vfn?m(add|sub)|vpdp|vdpbf16")
PLAIN = re.compile(r"v(add|sub|mul|div|max|min|sqrt|cmp|range|scalef|rndscale|round|pmadd|padd|pmull)")
SINGLE = re.compile(r"s[sd]$")  # the last letters of what takes the first value of a vector alone
FUNCTIONS = re.compile(r"<(exp|log|tanh|erf)f?@")  # of the C library
COSTLY = 4096
SMALL = ("vmovd", "vmovq", "vxorps", "vpxor")  # of part of a vector, or of none


@dataclass(frozen=True)
class Mix:
    """One turn of a loop: `width` bytes of its vectors (0: single values), multiply-adds and dot products, other arithmetic
    on vectors, arithmetic on single values, loads, stores, values spread over a vector, calls, and all instructions."""

    width: int
    fused: int
    arithmetic: int
    single: int
    loads: int
    broadcasts: int
    stores: int
    calls: int
    total: int

    @property
    def text(self) -> str:
        """In words: "28 multiply-adds, 2 loads, 14 broadcasts in 52 instructions, 64 bytes at a time"."""
        plain = "other operation" if self.fused else "operation"
        kinds = ((self.fused, "multiply-add"), (self.arithmetic, plain), (self.single, "single operation"),
                 (self.loads, "load"), (self.broadcasts, "broadcast"), (self.stores, "store"), (self.calls, "call"))  # fmt: skip
        counted = ", ".join(f"{n} {name}{'s' if n > 1 else ''}" for n, name in kinds if n)
        width = f"{self.width} bytes at a time" if self.width else "one value at a time"
        return f"{counted} in {self.total} instructions, {width}"

    def as_data(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Line:
    """An instruction as objdump writes it: "vmovups", "zmm1,ZMMWORD PTR [rax]"."""

    address: int
    operation: str
    operands: str

    @property
    def width(self) -> int:
        """Bytes that it works on at a time; 0 for what takes single values, and beside vectors."""
        if SINGLE.search(self.operation) or self.operation.startswith(SMALL):
            return 0
        return max((BYTES[name] for name in BYTES if name in self.operands), default=0)

    @property
    def kind(self) -> str | None:
        """ "fused", "arithmetic" or "single" if it computes."""
        if "mm" not in self.operands:
            return "single" if self.operation == "imul" else None
        if not (FUSED.match(self.operation) or PLAIN.match(self.operation)):
            return None
        return "single" if not self.width else "fused" if FUSED.match(self.operation) else "arithmetic"

    @property
    def access(self) -> str | None:
        """ "loads", "broadcasts" or "stores" if it reaches memory for values, "broadcasts" also between registers."""
        first, _, rest = self.operands.partition(",")
        if "mm" not in self.operands:
            return "loads" if self.operation.startswith("movsx") and "PTR [" in rest else None
        if "broadcast" in self.operation or "BCST" in rest or "{1to" in rest:
            return "broadcasts"
        return "loads" if "[" in rest else "stores" if "[" in first else None


def of(rung: Rung) -> Mix | None:
    """The mix of a rung that teaches in C++; None for others, and where objdump, nm or the extension's names are missing."""
    main = source.ladder_file(rung)
    if main is None or native.missing() or not (shutil.which("objdump") and shutil.which("nm")):
        return None
    names = FUNCTION.findall(main.read_text())
    return _busiest(names[-1], native.module().cpu_isas()[-1]) if names else None


def _busiest(function: str, isa: str) -> Mix | None:
    """Over the loops of a function and of those it refers to: most arithmetic on bytes for each instruction."""
    own = f"{len(isa)}{isa}"
    functions = _functions()
    waiting = [begin for begin, (_, name) in functions.items()
               if name.startswith("_ZN") and f"{own}{len(function)}{function}E" in name]  # fmt: skip
    seen: set[int] = set()
    found: list[tuple[float, Mix]] = []
    while waiting:
        begin = waiting.pop()
        if begin in seen:
            continue
        seen.add(begin)
        lines, used = _disassembled(begin, functions[begin][0])
        found += [(_weight(loop), _counted(loop)) for loop in _innermost(lines)]
        waiting += [other for other in used if other in functions and own in functions[other][1]]
    best = max(found, key=lambda pair: pair[0], default=None)
    return best[1] if best and best[0] else None


@cache
def _functions() -> dict[int, tuple[int, str]]:
    """Functions of the extension: where they begin, where they end, their names."""
    out = _output("nm", "-S", "--defined-only", str(native.module().__file__))
    rows = (line.split() for line in out.splitlines())
    return {int(row[0], 16): (int(row[0], 16) + int(row[1], 16), row[3])
            for row in rows if len(row) == 4 and row[2] in "tTwW"}  # fmt: skip


def _disassembled(begin: int, end: int) -> tuple[list[Line], set[int]]:
    """The instructions from one address to another, and where functions begin that they refer to."""
    out = _output("objdump", "-d", "--no-show-raw-insn", "-M", "intel", f"--start-address={begin}",
                  f"--stop-address={end}", str(native.module().__file__))  # fmt: skip
    found = re.findall(r"^\s*([0-9a-f]+):\t(?:\{\w+\} )?(\w+)\s*(.*)$", out, re.MULTILINE)
    used = {int(address, 16) for address in re.findall(r"\b([0-9a-f]+) <_Z[\w.]+>", out)}
    return [Line(int(address, 16), operation, operands) for address, operation, operands in found], used


def _innermost(lines: list[Line]) -> Iterator[list[Line]]:
    """Bodies of loops that hold no other loop: from the target of a jump back to the jump."""
    back = []
    for line in lines:
        target = re.match(r"([0-9a-f]+)\b", line.operands)
        if line.operation.startswith("j") and target and lines[0].address <= int(target[1], 16) <= line.address:
            back.append((int(target[1], 16), line.address))
    for begin, end in back:
        if not any(begin <= b and e <= end and (b, e) != (begin, end) for b, e in back):
            yield [line for line in lines if begin <= line.address <= end]


def _weight(loop: list[Line]) -> float:
    """Bytes that an instruction computes on, on average; a multiply-add counts twice, a call of exp as much as a tile."""
    work = {"fused": 2, "arithmetic": 1, "single": 1}
    done = sum(work[line.kind] * max(line.width, 4) for line in loop if line.kind)
    return (done + COSTLY * sum(bool(FUNCTIONS.search(line.operands)) for line in loop)) / len(loop)


def _counted(loop: list[Line]) -> Mix:
    kinds = Counter(what for line in loop for what in (line.kind, line.access) if what)
    return Mix(max(line.width for line in loop), kinds["fused"], kinds["arithmetic"], kinds["single"], kinds["loads"],
               kinds["broadcasts"], kinds["stores"], sum(line.operation == "call" for line in loop), len(loop))  # fmt: skip


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


__all__ = ["Mix", "of"]
