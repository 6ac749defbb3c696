"""PTX as Python: operands as expressions over arrays with an element for each thread, and registers as names.

A register is kept as an array of words of its width and seen as what an instruction takes it for (`view`).
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx.text import SIZES, Program, number


def view_of(kind: str) -> str:
    """NumPy's code of an instruction's type."""
    if kind in ("f16x2", "bf16x2", "f32x2"):
        return f"u{SIZES[kind]}"
    if kind == "bf16":
        return "u2"
    return f"{'u' if kind[0] == 'b' else 'i' if kind[0] == 's' else kind[0]}{SIZES[kind]}"


class Writer:
    """Writes lines of one function."""

    def __init__(
        self, program: Program, symbols: dict[str, int], registers: dict[str, int], constants: dict[str, Any]
    ) -> None:
        self.program, self.symbols, self.registers, self.constants = program, symbols, registers, constants
        self.lines: list[str] = []
        self.known: dict[str, dict[str, str]] = {}  # of a register: views of it that have a name
        self.taken: dict[str, str] = {}
        self.changed: set[str] = set()
        self.count = 0

    # What operands are.

    def named(self, text: str) -> str:
        """A name for an expression's value."""
        self.count += 1
        name = f"v{self.count}"
        self.lines.append(f"{name} = {text}")
        return name

    def constant(self, value: Any) -> str:
        key = f"k_{value.dtype.str[1:]}_{value.tobytes().hex()}"
        self.constants[key] = value
        return key

    def is_register(self, text: str) -> bool:
        return text in self.program.kinds

    def read(self, text: str, view: str) -> str:
        """An operand as an expression of that view ("u4", "f4", "b1" for predicates)."""
        text = text.strip()
        if text.startswith("!"):
            return f"(~{self.read(text[1:], view)})"
        if self.is_register(text):
            return self._register(text, view)
        if text in self.symbols:
            return self.constant(np.asarray(self.symbols[text]).astype(np.uint64).astype(view)[()])
        if text.startswith("%") and not self.is_register(text):
            return self._special(text, view)
        if text.startswith("-") and self.is_register(text[1:]):
            return f"(-{self.read(text[1:], view)})"
        found = re.fullmatch(r"([\w$%@]+)\s*\+\s*(-?\w+)", text)
        if found and found[1] in self.symbols:
            return self.constant(
                np.asarray(self.symbols[found[1]] + number(found[2])).astype(np.uint64).astype(view)[()]
            )
        if view == "b1":
            return self.constant(np.bool_(bool(number(text))))
        return self.constant(self._immediate(text, view))

    def _immediate(self, text: str, view: str) -> Any:
        kind = np.dtype(view)
        bits = number(text)
        spelled = text[:2].lower()
        if kind.kind == "f" and spelled == "0d" and kind.itemsize != 8:
            return np.uint64(bits).view(np.float64).astype(kind)
        if kind.kind == "f" and spelled == "0f" and kind.itemsize != 4:
            return np.uint32(bits).view(np.float32).astype(kind)
        if kind.kind == "f" and spelled not in ("0d", "0f") and not text.lower().startswith("0x"):
            return kind.type(bits)
        mask = (1 << 8 * kind.itemsize) - 1
        return np.dtype(f"u{kind.itemsize}").type(bits & mask).view(kind)

    def _register(self, name: str, view: str) -> str:
        views = self.known.setdefault(name, {})
        own = "b1" if self.program.kinds[name] == "pred" else f"u{SIZES[self.program.kinds[name]]}"
        if not views:
            taken = f"r{self.registers[name]}"
            self.taken[taken] = own
            views[own] = taken
        if view in views:
            return views[view]
        wide, asked = int(own[1:]), int(view[1:])
        if own == "b1" or view == "b1":
            raise KernelError(f"{name} is taken for a predicate and for a number")
        if asked == wide:
            source = next(iter(views.values()))
            views[view] = self.named(f"{source}.view('{view}')")
        else:
            source = self._register(name, f"{'i' if view[0] == 'i' else 'u'}{wide}")
            if view[0] == "f":
                views[view] = self.named(f"{source}.astype('u{asked}').view('{view}')")
            else:
                views[view] = self.named(f"{source}.astype('{view}')")
        return views[view]

    def _special(self, text: str, view: str) -> str:
        return f"m.special(c, '{text}').astype('{view}')"

    # What instructions leave.

    def write(self, register: str, value: str, view: str, guard: str) -> None:
        """A register's new value, under a guard where there is one."""
        register = register.strip()
        if register == "_":
            return
        if not self.is_register(register):
            raise KernelError(f"PTX writes to {register}, which is no register")
        own = self.program.kinds[register]
        width = SIZES[own]
        if own == "pred":
            view = "b1"
        elif int(view[1:]) < width:  # extended by its type
            value, view = (
                f"{value}.astype('{'i' if view[0] == 'i' else 'u'}{width}')",
                f"{'i' if view[0] == 'i' else 'u'}{width}",
            )
        elif int(view[1:]) > width:
            value, view = f"{value}.astype('u{width}')", f"u{width}"
        if guard:
            value = f"where({self.read(guard, 'b1')}, {value}, {self._register(register, view)})"
        name = self.named(value)
        self.known[register] = {view: name}
        self.changed.add(register)

    def flush(self) -> None:
        """Writes registers back, so that the machine may look at them."""
        for register in sorted(self.changed, key=self.registers.__getitem__):
            self.lines.append(f"m.put({self.registers[register]}, {next(iter(self.known[register].values()))}, c)")
        self.changed.clear()


def listed(text: str) -> list[str]:
    """What is between braces."""
    return [t.strip() for t in text.strip().strip("{}").split(",")]
