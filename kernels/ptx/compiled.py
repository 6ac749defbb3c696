"""A kernel made ready to run: where its variables lie, and each block of its instructions as a Python function."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx import expressions, instructions, text

WITH_SPACE = ("ld", "st", "atom", "cp", "wgmma")  # instructions whose name alone says little
STUCK = object()  # what a block gives whose threads all have to wait


class Compiled:
    """A kernel whose blocks of instructions are functions."""

    def __init__(self, source: str, name: str = "") -> None:
        self.program = program = text.parse(source, name)
        blocks, numbers = instructions.divided(program)
        self.labels = {label: numbers[n] for label, n in program.labels.items()}
        self.registers = {register: n for n, register in enumerate(program.kinds)}
        self.instructions: list[text.Instruction] = []
        self.static = 0  # bytes of shared memory
        self.local = 0
        self.symbols: dict[str, int] = {}
        self.kept: list[Any] = []  # memory of global variables
        self.variables: list[tuple[int, int, str]] = []
        self._place()
        self.has_units = any(i.name == "wgmma" or i.op[:3] == ("cp", "async", "bulk") for b in blocks for i in b)
        self.has_partial_barriers = any(
            i.name == "mbarrier" or (i.name in ("bar", "barrier") and "warp" not in i.op and i.operands != ["0"])
            for b in blocks
            for i in b
        )
        self.together = [any(instructions.is_of_warps(i) for i in block) for block in blocks]
        self.stops = [  # of each block, the instruction that threads may have to wait at
            next(
                (i.text for i in block if instructions.waits(i) or instructions.is_of_warps(i)),
                block[0].text if block else "",
            )
            for block in blocks
        ]
        self.ends = [self._end(block, n) for n, block in enumerate(blocks)]
        self.ends[-1] = ("end", False, 0)  # the last block is empty: where a kernel ends that does not say so
        self.names = [
            Counter(".".join(i.op[:2]) if i.name in WITH_SPACE else i.name for i in block) for block in blocks
        ]
        self.functions = self._functions(blocks)

    def _place(self) -> None:
        """Where variables and parameters lie."""
        extern, program = [], self.program
        for v in program.variables:
            if v.space == "shared":
                if v.size == 0:
                    extern.append(v)
                    continue
                self.static = -(-self.static // v.align) * v.align
                self.symbols[v.name] = self.static
                self.static += v.size
            elif v.space in ("local", "param"):  # of functions that are called
                self.local = -(-self.local // v.align) * v.align
                self.symbols[v.name] = self.local
                program.own.add(v.name)
                self.local += v.size
            else:
                room = np.zeros(v.size + 16, np.uint8)
                start = -room.ctypes.data % 16
                room[start : start + len(v.values)] = np.frombuffer(v.values, np.uint8)
                self.kept.append(room)
                self.symbols[v.name] = room.ctypes.data + start
                self.variables.append((room.ctypes.data + start, v.size, v.name))
        self.static = -(-self.static // 16) * 16
        for v in extern:  # behind what is there already
            self.static = -(-self.static // v.align) * v.align
        self.symbols.update((v.name, self.static) for v in extern)
        at = 0
        for p in self.program.parameters:
            at = -(-at // p.align) * p.align
            self.symbols[p.name] = at
            at += p.size
        self.parameters = at

    def _end(self, block: list[text.Instruction], n: int) -> tuple[Any, ...]:
        """How a block ends: ("go", there), ("branch", guard, there, else), ("table", index, there), ("end",), ("bar", ...)."""
        last = block[-1] if block else None
        if last is None:
            return ("go", n + 1)
        match last.name:
            case "bra":
                there = self.labels[last.operands[0]]
                return ("branch", there, n + 1) if last.guard else ("go", there)
            case "brx":
                names = self.program.tables[last.operands[1]]
                if last.guard:
                    raise KernelError(f"PTX's instruction is not known to the machine: {last.text}")
                return ("table", [self.labels[name] for name in names], last.text)
            case "ret" | "exit":
                return ("end", last.guard != "", n + 1)
            case "trap":
                return ("trap", last.guard != "", n + 1)
            case "bar" | "barrier":
                if {"red", "cluster"} & set(last.op):
                    raise KernelError(f"PTX's instruction is not known to the machine: {last.text}")
                return ("bar", last, n + 1)
        return ("go", n + 1)

    def _functions(self, blocks: list[list[text.Instruction]]) -> list[Any]:
        constants: dict[str, Any] = {}
        lines: list[str] = []
        for n, block in enumerate(blocks):
            lines += self._function(n, block, constants)
        names = {**expressions.NAMES, **constants, "STUCK": STUCK}
        exec(compile("\n".join(lines), f"<PTX of {self.program.name}>", "exec"), names)
        return [names[f"block_{n}"] for n in range(len(blocks))]

    def _function(self, n: int, block: list[text.Instruction], constants: dict[str, Any]) -> list[str]:
        writer = instructions.Block(self.program, self.symbols, self.registers, constants)
        result = "None"
        for i in block:
            at = len(self.instructions)
            self.instructions.append(i)
            if instructions.waits(i):
                if "parity" not in i.op:
                    raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
                barrier, parity = writer.pointed(i.operands[1]), writer.read(i.operands[2], "u4")
                asked = f"m.wait({at}, {barrier}, {parity}, c, {writer.guard(i.guard)})"
                found = writer.named(asked)
                writer.lines.append(f"if {found} is None: return STUCK")
                writer.write(i.operands[0], found, "b1", i.guard)
            elif i.name in ("bra", "ret", "exit", "trap"):
                result = writer.guard(i.guard)
            elif i.name == "brx":
                result = writer.read(i.operands[0], "u4")
            elif i.name in ("bar", "barrier"):
                numbers = [writer.read(o, "u4") for o in i.operands]
                result = f"(({', '.join(numbers)},), {writer.guard(i.guard)})"
            else:
                writer.instruction(i, at)
        writer.flush()
        taken = sorted(writer.taken.items())
        head = [f"def block_{n}(m, c):"]
        head += [f" {name} = m.take({name[1:]}, c)" + ("" if own == "b1" else f".view('{own}')") for name, own in taken]
        return head + [f" {line}" for line in writer.lines] + [f" return {result}"]
