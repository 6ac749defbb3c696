"""PTX as text, and as what it says: a kernel's parameters, variables, registers, and its instructions in blocks.

Written after the PTX ISA, chapters 4 (syntax) and 5 (state spaces and types).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ulpgrad.errors import KernelError

SIZES = {
    "b8": 1, "u8": 1, "s8": 1, "b16": 2, "u16": 2, "s16": 2, "f16": 2, "bf16": 2, "b32": 4, "u32": 4, "s32": 4, "f32": 4,
    "f16x2": 4, "bf16x2": 4, "b64": 8, "u64": 8, "s64": 8, "f64": 8, "f32x2": 8, "pred": 1, "b128": 16,
}  # fmt: skip
ENDS = ("bra", "ret", "exit", "brx", "trap")  # what a block of instructions ends with

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_PLACE = re.compile(r"^\s*\.(?:loc|file|pragma)\b[^\n]*$", re.MULTILINE)
_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\(([^)]*)\)([^{]*)\{", re.DOTALL)
_FUNCTION = re.compile(r"\.func\s*(?:\(([^)]*)\)\s*)?([\w$]+)\s*\(([^)]*)\)[^;{]*\{", re.DOTALL)
_CALL = re.compile(r"call(?:\.uni)?\s*(?:\(([^)]*)\)\s*,\s*)?([\w$]+)\s*(?:,\s*\(([^)]*)\))?$")
_LABEL = re.compile(r"([\w$]+)\s*:(?!:)")
_VARIABLE = re.compile(
    r"\.(shared|global|local|const|param)\s+(?:\.attribute\([^)]*\)\s*)?(?:\.align\s+(\d+)\s+)?\.(\w+)\s+([\w$]+)((?:\[\d*\])*)(?:\s*=\s*(.*))?$",
    re.DOTALL,
)
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(.*)", re.DOTALL)


@dataclass(frozen=True)
class Variable:
    """Memory with a name. `values` are what a global one starts as."""

    space: str
    name: str
    size: int
    align: int
    values: bytes = b""


@dataclass(frozen=True)
class Parameter:
    name: str
    size: int
    align: int


@dataclass
class Instruction:
    """One instruction: `op` with its modifiers, as ("ld", "global", "v4", "b32"), operands as text, and a guard as in "!%p1"."""

    op: tuple[str, ...]
    operands: list[str]
    guard: str
    text: str

    @property
    def name(self) -> str:
        return self.op[0]


@dataclass
class Program:
    """One kernel. Instructions of block i are run in order; `labels` name blocks; `kinds` says what a register holds."""

    name: str
    parameters: list[Parameter]
    variables: list[Variable]
    kinds: dict[str, str]
    blocks: list[list[Instruction]]
    labels: dict[str, int]
    tables: dict[str, list[str]] = field(default_factory=dict)
    own: set[str] = field(default_factory=set)  # variables that each thread has


def parse(text: str, name: str = "") -> Program:
    """The kernel of that name (the only one if none is given). KernelError for text that is not PTX with such a kernel."""
    text = _PLACE.sub("", _COMMENT.sub("", text))
    found = next((m for m in _ENTRY.finditer(text) if name in ("", m[1])), None)
    if found is None:
        raise KernelError(f"no kernel {name or 'at all'} in this PTX")
    variables = [v for v in (_variable(s) for s in _outside(text)) if v is not None]
    functions = {m[2]: (_names(m[1]), _names(m[3]), m.end()) for m in _FUNCTION.finditer(text)}
    parameters = [_parameter(p) for p in found[2].split(",") if p.strip()]
    return _Body(found[1], parameters, variables, text, functions).read(found.end())


def _names(parameters: str | None) -> list[str]:
    return [_parameter(p).name for p in (parameters or "").split(",") if p.strip()]


def _outside(text: str) -> Iterator[str]:
    """What stands outside of functions and declares memory, statement by statement."""
    depth, start, values = 0, 0, False
    for m in re.finditer(r"[{};]", text):
        if m[0] == "{":
            values = values or (depth == 0 and text[: m.start()].rstrip().endswith("="))
            depth += 1
        elif m[0] == "}":
            depth -= 1
            if depth == 0 and not values:
                start = m.end()
        elif depth == 0:
            at = re.search(r"\.(?:shared|global|const)\b", text[start : m.start()])
            if at:
                yield text[start + at.start() : m.start()].strip()
            start, values = m.end(), False


def _parameter(text: str) -> Parameter:
    words = text.split()
    kind = next(w[1:] for w in words if w.startswith(".") and w[1:] in SIZES)
    name, _, count = words[-1].partition("[")
    align = int(words[words.index(".align") + 1]) if kind == "b8" and ".align" in words else SIZES[kind]
    return Parameter(name, SIZES[kind] * (int(count.rstrip("]")) if count else 1), align)


def _variable(text: str) -> Variable | None:
    found = _VARIABLE.match(text)
    if found is None:
        return None
    space, align, kind, name, sizes, given = found.groups()
    count = 1
    for n in re.findall(r"\[(\d*)\]", sizes or ""):
        count *= int(n or 0)
    if given and "[]" in sizes:
        count = len([v for v in given.split(",") if v.strip("{} \n\t")])
    values = b"".join(_bytes(v.strip(), SIZES[kind]) for v in (given or "").strip("{} \n\t").split(",") if v.strip())
    return Variable(space, name, count * SIZES[kind], int(align or SIZES[kind]), values)


def _bytes(value: str, size: int) -> bytes:
    return (number(value) & (1 << 8 * size) - 1).to_bytes(size, "little")


def number(text: str) -> int:
    """The bits of an immediate: an integer (of base 10, 16, 8 or 2), or a float that is spelled in its bits (0f..., 0d...)."""
    if text[:2].lower() in ("0f", "0d") and len(text) in (10, 18):
        return int(text[2:], 16)
    return int(text.rstrip("U"), 8 if re.fullmatch(r"-?0[0-7]+U?", text) else 0)


class _Body:
    """Reads a function's body. Braces open a scope with registers and labels of its own, which get names of their own; a function
    that is called is read where it is called, as such a scope."""

    def __init__(
        self, name: str, parameters: list[Parameter], variables: list[Variable], text: str,
        functions: dict[str, tuple[list[str], list[str], int]],
    ) -> None:  # fmt: skip
        self.program = Program(name, parameters, variables, {}, [[]], {})
        self.text, self.functions = text, functions
        self.scopes: list[tuple[int, dict[str, str]]] = [(0, {})]
        self.count = 0
        self.callers: list[int] = []  # scopes of the functions that are being read
        self.waiting: list[tuple[Instruction, list[str]]] = []  # branches, and what their labels may be called

    def read(self, at: int) -> Program:
        self._body(at)
        self._resolve()
        return self.program

    def _body(self, at: int) -> None:
        """What stands up to the brace that closes the one before `at`."""
        text, depth = self.text, len(self.scopes)
        while True:
            at = _skip(text, at)
            if text[at] == "{":
                self._enter()
                at += 1
                continue
            if text[at] == "}":
                at += 1
                if len(self.scopes) == depth:
                    return
                self.scopes.pop()
                continue
            label = _LABEL.match(text, at)
            if label:
                at = _skip(text, label.end())
                if text.startswith((".branchtargets", ".calltargets"), at):
                    end = text.index(";", at)
                    self.program.tables[self._label(label[1])] = [s.strip() for s in text[at + 14 : end].split(",")]
                    at = end + 1
                else:
                    self._mark(self._label(label[1]))
                continue
            end = text.index(";", at)
            self._statement(" ".join(text[at:end].split()))
            at = end + 1

    def _enter(self) -> None:
        self.count += 1
        self.scopes.append((self.count, {}))

    def _mark(self, label: str) -> None:
        self._open()
        self.program.labels[label] = len(self.program.blocks) - 1

    def _call(self, text: str) -> None:
        found = _CALL.match(text)
        if found is None or found[2] not in self.functions:
            raise KernelError(f"PTX calls a function that is not there: {text}")
        results, parameters, at = self.functions[found[2]]
        given = [self._name(n.strip()) for part in (found[1], found[3]) for n in (part or "").split(",") if n.strip()]
        self._enter()
        self.scopes[-1][1].update(zip([*results, *parameters], given, strict=True))
        self.callers.append(self.count)
        self._body(at)
        self._mark(f"return@{self.callers.pop()}")
        self.scopes.pop()

    def _open(self) -> None:
        if self.program.blocks[-1]:
            self.program.blocks.append([])

    def _label(self, name: str) -> str:
        return f"{name}@{self.scopes[-1][0]}"

    def _statement(self, text: str) -> None:
        if text.startswith(".reg"):
            self._declare(text)
        elif text.startswith("."):
            variable = _variable(text)
            if variable is not None:
                own = variable.name if len(self.scopes) == 1 else f"{variable.name}@{self.scopes[-1][0]}"
                self.scopes[-1][1][variable.name] = own
                self.program.variables.append(dataclasses.replace(variable, name=own))
        elif text.startswith("call"):
            self._call(text)
        elif text:
            self._instruction(text)

    def _declare(self, text: str) -> None:
        found = _REGISTERS.match(text)
        if found is None:
            raise KernelError(f"PTX declares registers in a way that is not known: {text}")
        for name in found[2].split(","):
            plain, _, count = name.strip().partition("<")
            for one in [f"{plain}{i}" for i in range(int(count.rstrip(">")))] if count else [plain]:
                known = one if len(self.scopes) == 1 else f"{one}@{self.scopes[-1][0]}"
                self.scopes[-1][1][one] = known
                self.program.kinds[known] = found[1]

    def _instruction(self, text: str) -> None:
        guard, rest = "", text
        if rest.startswith("@"):
            guard, _, rest = rest[1:].partition(" ")
            guard = ("!" if guard.startswith("!") else "") + self._name(guard.lstrip("!"))
        op, _, operands = rest.strip().partition(" ")
        if op == "ret" and self.callers:
            op, operands = "bra", f"return@{self.callers[-1]}"
        made = Instruction(tuple(op.split(".")), _split(operands), guard, text)
        if made.name in ("bra", "brx"):
            self.waiting.append((made, [str(scope) for scope, _ in reversed(self.scopes)]))
        made.operands = [self._renamed(o) for o in made.operands]
        self.program.blocks[-1].append(made)
        if made.name in ENDS:
            self.program.blocks.append([])

    def _name(self, name: str) -> str:
        return next((names[name] for _, names in reversed(self.scopes) if name in names), name)

    def _renamed(self, operand: str) -> str:
        if len(self.scopes) == 1:
            return operand
        return re.sub(r"%?[A-Za-z_$][\w$]*", lambda m: self._name(m[0]), operand)

    def _resolve(self) -> None:
        for branch, scopes in self.waiting:
            known: dict[str, int] = {**self.program.labels, **dict.fromkeys(self.program.tables, 0)}
            branch.operands = [next((f"{o}@{s}" for s in scopes if f"{o}@{s}" in known), o) for o in branch.operands]
        for table, names in self.program.tables.items():
            scope = table.rpartition("@")[2]
            self.program.tables[table] = [f"{n}@{scope}" for n in names]


def _skip(text: str, at: int) -> int:
    while text[at].isspace() or text[at] == ";":
        at += 1
    return at


def _split(text: str) -> list[str]:
    """Operands, which commas part outside of brackets and braces."""
    parts, depth, now = [], 0, ""
    for c in text:
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            parts.append(now.strip())
            now = ""
        else:
            now += c
    return [*parts, now.strip()] if now.strip() else parts


__all__ = ["SIZES", "Instruction", "Parameter", "Program", "Variable", "number", "parse"]
