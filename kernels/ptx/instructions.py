"""Each instruction of a block as lines of the function that the block becomes."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from ulpgrad.errors import KernelError
from ulpgrad.kernels.ptx import warp
from ulpgrad.kernels.ptx.expressions import converted, simple
from ulpgrad.kernels.ptx.memory import LOCAL, PARAM, SHARED
from ulpgrad.kernels.ptx.text import SIZES, Instruction, Program, number
from ulpgrad.kernels.ptx.write import Writer, listed, view_of

NOTHING = frozenset((
    "membar", "fence", "griddepcontrol", "nanosleep", "setmaxnreg", "prefetch", "prefetchu", "discard", "applypriority", "pragma",
    "pmevent",
))  # fmt: skip
COMPARISONS = {
    "eq": "==",
    "ne": "!=",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "lo": "<",
    "ls": "<=",
    "hi": ">",
    "hs": ">=",
}
TOGETHER = ("mma", "ldmatrix", "stmatrix", "shfl", "redux", "vote", "elect", "wgmma", "match")  # whole warps run these


def waits(i: Instruction) -> bool:
    """Whether threads may have to wait at an instruction until it is true."""
    return i.name == "mbarrier" and i.op[1] in ("try_wait", "test_wait")


def is_of_warps(i: Instruction) -> bool:
    """Whether the threads of a warp run an instruction together."""
    return i.name in TOGETHER or (i.name == "bar" and "warp" in i.op)


def divided(program: Program) -> tuple[list[list[Instruction]], dict[int, int]]:
    """Blocks that end where threads may stop, and the number that each block of the program has got."""
    out: list[list[Instruction]] = []
    numbers = {}
    for n, block in enumerate(program.blocks):
        numbers[n] = len(out)
        out.append([])
        for i in block:
            if waits(i) and out[-1]:
                out.append([])
            out[-1].append(i)
            if i.name in ("bar", "barrier"):
                out.append([])
    out.append([])
    return out, numbers


def space_of(i: Instruction) -> str:
    """The state space that an instruction names, or nothing."""
    named = (o.partition("::")[0] for o in i.op[1:])
    return next((o for o in named if o in ("global", "shared", "local", "param", "const")), "")


class Block(Writer):
    """Writes the function of one block."""

    # Instructions.

    def instruction(self, i: Instruction, at: int) -> None:
        """The lines of an instruction, the `at`-th of the kernel."""
        method: Callable[[Instruction, int], None] | None = getattr(self, f"op_{i.name}", None)
        if i.name in NOTHING:
            if i.op[1:3] == ("proxy", "async") or i.op[1:2] == ("proxy.async",):
                self.lines.append(f"m.fence({at}, c, {self.guard(i.guard)})")
            return
        if method is not None:
            method(i, at)
            return
        found = simple(i)
        if found is None:
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
        text, views, result = found
        given = [self.read(o, v) for o, v in zip(i.operands[1:], views, strict=True)]
        if "ftz" in i.op:
            given = [f"flushed({a})" if v == "f4" else a for a, v in zip(given, views, strict=True)]
        value = text.format(*given)
        if "ftz" in i.op and result == "f4":
            value = f"flushed({value})"
        if "sat" in i.op and result[0] == "f":
            value = f"saturated({value})"
        self.write(i.operands[0], value, result, i.guard)

    def guard(self, guard: str) -> str:
        return self.read(guard, "b1") if guard else "None"

    def op_mov(self, i: Instruction, at: int) -> None:
        to, source = i.operands
        kind = i.op[-1]
        if kind == "pred":
            self.write(to, self.read(source, "b1"), "b1", i.guard)
        elif to.startswith("{"):
            parts = listed(to)
            width = SIZES[kind] // len(parts)
            word = self.read(source, f"u{SIZES[kind]}")
            for n, part in enumerate(parts):
                self.write(
                    part,
                    f"({word} >> {self.constant(np.dtype(f'u{SIZES[kind]}').type(8 * width * n))}).astype('u{width}')",
                    f"u{width}",
                    i.guard,
                )
        elif source.startswith("{"):
            parts = listed(source)
            size = SIZES[kind]
            width = size // len(parts)
            terms = [
                f"({self.read(p, f'u{width}')}.astype('u{size}') << {self.constant(np.dtype(f'u{size}').type(8 * width * n))})"
                for n, p in enumerate(parts)
            ]
            self.write(to, " | ".join(terms), f"u{size}", i.guard)
        else:
            view = f"u{SIZES[kind]}"
            self.write(to, self.read(source, view), view, i.guard)

    def op_cvta(self, i: Instruction, at: int) -> None:
        base = self.constant(np.uint64({"shared": SHARED, "local": LOCAL, "param": PARAM}.get(space_of(i), 0)))
        value = self.read(i.operands[1], "u8")
        self.write(i.operands[0], f"{value} - {base}" if i.op[1] == "to" else f"{value} + {base}", "u8", i.guard)

    def op_setp(self, i: Instruction, at: int) -> None:
        compare, kind = i.op[1], i.op[-1]
        if kind in ("f16x2", "bf16x2"):
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
        view = "b1" if kind == "pred" else view_of(kind)
        a, b = (self.read(o, view) for o in i.operands[1:3])
        if kind == "bf16":
            a, b = f"widened({a})", f"widened({b})"
        if kind in ("f32",) and "ftz" in i.op:
            a, b = f"flushed({a})", f"flushed({b})"
        is_float = kind[0] == "f" or kind == "bf16"
        if compare in ("num", "nan"):
            value = f"({a} == {a}) & ({b} == {b})" if compare == "num" else f"({a} != {a}) | ({b} != {b})"
        elif is_float and compare in ("equ", "neu", "ltu", "leu", "gtu", "geu"):
            value = f"({a} {COMPARISONS[compare[:2]]} {b}) | ({a} != {a}) | ({b} != {b})"
        elif is_float and compare == "ne":
            value = f"({a} != {b}) & ({a} == {a}) & ({b} == {b})"
        else:
            value = f"({a} {COMPARISONS[compare]} {b})"
        to, _, other = i.operands[0].partition("|")
        found = self.named(value)
        results = [found, f"(~{found})"]
        combine = next((o for o in i.op[2:-1] if o in ("and", "or", "xor")), None)
        if combine:
            third = self.read(i.operands[3], "b1")
            results = [f"({r} {dict(zip(('and', 'or', 'xor'), '&|^', strict=True))[combine]} {third})" for r in results]
        for register, result in zip((to, other), results, strict=True):
            if register.strip():
                self.write(register, result, "b1", i.guard)

    def op_selp(self, i: Instruction, at: int) -> None:
        view = f"u{SIZES[i.op[-1]]}"
        a, b = (self.read(o, view) for o in i.operands[1:3])
        self.write(i.operands[0], f"where({self.read(i.operands[3], 'b1')}, {a}, {b})", view, i.guard)

    def op_cvt(self, i: Instruction, at: int) -> None:
        value, view = converted(i, self)
        self.write(i.operands[0], value, view, i.guard)

    def op_lop3(self, i: Instruction, at: int) -> None:
        a, b, c = (self.read(o, "u4") for o in i.operands[1:4])
        self.write(i.operands[0], f"any_logic({a}, {b}, {c}, {number(i.operands[4])})", "u4", i.guard)

    # Memory.

    def address(self, text: str) -> tuple[str, str]:
        """An operand in brackets: the register or symbol, and the constant behind it."""
        inner = text.strip()[1:-1].strip()
        found = re.fullmatch(r"([%\w$@]+)\s*(?:\+\s*(-?\w+))?", inner)
        if found is None:
            raise KernelError(f"PTX's address is not known to the machine: {text}")
        return found[1], found[2] or "0"

    def pointed(self, text: str) -> str:
        base, offset = self.address(text)
        wide = self.symbols.get(base) is not None or not self.is_register(base) or SIZES[self.program.kinds[base]] == 8
        value = self.read(base, "u8" if wide else "u4")
        plus = number(offset)
        if plus:
            bits = 64 if wide else 32
            value = f"({value} + {self.constant(np.dtype(f'u{bits // 8}').type(plus & (1 << bits) - 1))})"
        return value if wide else f"{value}.astype('u8')"

    def space(self, i: Instruction) -> str:
        """Where an access goes: "generic" where only the address says it."""
        found = space_of(i) or "generic"
        if found == "param" and self.address(next(o for o in i.operands if o.startswith("[")))[0] in self.program.own:
            return "local"
        return "global" if found == "const" else found

    def op_ld(self, i: Instruction, at: int) -> None:
        kind = i.op[-1]
        width = SIZES[kind]
        view = view_of(kind) if kind[0] in "su" else f"u{width}"
        targets = listed(i.operands[0]) if i.operands[0].startswith("{") else [i.operands[0]]
        space = self.space(i)
        where = self.guard(i.guard)
        found = self.named(f"m.load_{space}({at}, {self.pointed(i.operands[1])}, {width}, {len(targets)}, c, {where})")
        for n, target in enumerate(targets):
            value = f"{found}[{n}]"
            if view[0] == "i":
                value += f".view('{view}')"
            self.write(target, value, view, i.guard)

    op_ldu = op_ld

    def op_st(self, i: Instruction, at: int) -> None:
        width = SIZES[i.op[-1]]
        sources = listed(i.operands[1]) if i.operands[1].startswith("{") else [i.operands[1]]
        values = ", ".join(self.read(s, f"u{width}") for s in sources)
        where = self.guard(i.guard)
        self.lines.append(
            f"m.store_{self.space(i)}({at}, {self.pointed(i.operands[0])}, {width}, [{values}], c, {where})"
        )

    def op_atom(self, i: Instruction, at: int) -> None:
        kind = i.op[-1]
        op = next((o for o in i.op if o in ("add", "min", "max", "and", "or", "xor", "exch", "cas")), None)
        if op is None or kind in ("f16x2", "bf16x2", "bf16", "b128") or i.op[-2] in ("v2", "v4", "v8"):
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
        values = ", ".join(self.read(o, view_of(kind)) for o in i.operands[2:])
        where = f"{self.pointed(i.operands[1])}, '{view_of(kind)}'"
        found = self.named(f"m.atomic({at}, '{self.space(i)}', '{op}', {where}, [{values}], c, {self.guard(i.guard)})")
        self.write(i.operands[0], found, view_of(kind), i.guard)

    def op_red(self, i: Instruction, at: int) -> None:
        self.op_atom(Instruction(i.op, ["_", *i.operands], i.guard, i.text), at)

    def op_createpolicy(self, i: Instruction, at: int) -> None:
        self.write(i.operands[0], self.constant(np.uint64(0)), "u8", i.guard)

    def op_isspacep(self, i: Instruction, at: int) -> None:
        self.write(
            i.operands[0], f"m.is_in('{i.op[1].partition('::')[0]}', {self.read(i.operands[1], 'u8')})", "b1", i.guard
        )

    def op_activemask(self, i: Instruction, at: int) -> None:
        self.write(i.operands[0], "m.active(c)", "u4", i.guard)

    # Warps.

    def op_shfl(self, i: Instruction, at: int) -> None:
        mode = i.op[2] if i.op[1] == "sync" else i.op[1]
        self.lines.append(f"m.check_whole({at}, c, None)")
        a, by, bounds = (f"m.full({self.read(o, 'u4')}, c)" for o in i.operands[1:4])
        found = self.named(f"shuffled('{mode}', {a}, {by}, {bounds})")
        to, _, inside = i.operands[0].partition("|")
        self.write(to, f"{found}[0]", "u4", i.guard)
        if inside:
            self.write(inside, f"{found}[1]", "b1", i.guard)

    def op_redux(self, i: Instruction, at: int) -> None:
        view = view_of(i.op[-1])
        self.lines.append(f"m.check_whole({at}, c, None)")
        self.write(i.operands[0], f"reduced('{i.op[2]}', m.full({self.read(i.operands[1], view)}, c))", view, i.guard)

    def op_vote(self, i: Instruction, at: int) -> None:
        view = "u4" if i.op[2] == "ballot" else "b1"
        self.lines.append(f"m.check_whole({at}, c, None)")
        self.write(i.operands[0], f"voted('{i.op[2]}', m.full({self.read(i.operands[1], 'b1')}, c))", view, i.guard)

    def op_elect(self, i: Instruction, at: int) -> None:
        to, _, chosen = i.operands[0].partition("|")
        self.write(to, self.constant(np.uint32(0)), "u4", i.guard)
        self.write(chosen or to, "(m.lane(c) == 0)", "b1", i.guard)

    def op_mma(self, i: Instruction, at: int) -> None:
        shape = next(o for o in i.op if re.fullmatch(r"m\d+n\d+k\d+", o))
        kinds = tuple(o for o in i.op if o in warp.WIDTHS)
        if not set(i.op[1:]) <= {"sync", "aligned", "row", "col", "satfinite", shape, *kinds} or len(kinds) != 4:
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
        self.lines.append(f"m.check_whole({at}, c, {self.guard(i.guard)})")
        d, a, b, c = (listed(o) for o in i.operands[:4])
        given = [
            "["
            + ", ".join(
                f"m.full({self.read(r, f'u{SIZES[self.program.kinds[r]]}' if self.is_register(r) else 'u4')}, c)"
                for r in part
            )
            + "]"
            for part in (a, b, c)
        ]
        found = self.named(f"multiplied('{shape}', {kinds!r}, {', '.join(given)}, {'satfinite' in i.op})")
        for n, register in enumerate(d):
            self.write(register, f"{found}[{n}]", f"u{SIZES[self.program.kinds[register]]}", i.guard)

    def op_ldmatrix(self, i: Instruction, at: int) -> None:
        count = int(next(o for o in i.op if re.fullmatch(r"x\d", o))[1:])
        if "m8n8" not in i.op or i.op[-1] != "b16":
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
        self.lines.append(f"m.check_whole({at}, c, {self.guard(i.guard)})")
        found = self.named(f"m.load_matrices({at}, {self.pointed(i.operands[1])}, {count}, {'trans' in i.op}, c)")
        for n, register in enumerate(listed(i.operands[0])):
            self.write(register, f"{found}[{n}]", "u4", i.guard)

    def op_stmatrix(self, i: Instruction, at: int) -> None:
        registers = ", ".join(f"m.full({self.read(r, 'u4')}, c)" for r in listed(i.operands[1]))
        self.lines.append(f"m.check_whole({at}, c, {self.guard(i.guard)})")
        self.lines.append(
            f"m.store_matrices({at}, {self.pointed(i.operands[0])}, [{registers}], {'trans' in i.op}, c, {self.guard(i.guard)})"
        )

    # What goes on beside the threads.

    def op_cp(self, i: Instruction, at: int) -> None:
        where = self.guard(i.guard)
        if i.op[1:3] == ("async", "commit_group"):
            self.lines.append(f"m.copies.close(c, {where})")
        elif i.op[1:3] in (("async", "wait_group"), ("async", "wait_all")):
            self.lines.append(f"m.copies.wait({at}, {number(i.operands[0]) if i.operands else -1}, c, {where})")
        elif i.op[1:3] == ("async", "bulk"):
            self.bulk(i, at, where)
        elif i.op[1] == "async" and i.op[2] in ("ca", "cg"):
            size = number(i.operands[2])
            there = (
                self.read(i.operands[3], "u4")
                if len(i.operands) > 3 and "cache_hint" not in i.text
                else self.constant(np.uint32(size))
            )
            self.lines.append(
                f"m.copies.begin({at}, {self.pointed(i.operands[0])}, {self.pointed(i.operands[1])}, {size}, {there}, c, {where})"
            )
        else:
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")

    def bulk(self, i: Instruction, at: int, where: str) -> None:
        if i.op[3] == "commit_group":
            self.lines.append(f"m.bulk.close(c, {where})")
        elif i.op[3] == "wait_group":
            self.lines.append(f"m.bulk.wait({at}, {number(i.operands[0])}, c, {where})")
        elif i.op[3] == "tensor":
            to_shared = any(o.startswith("mbarrier") for o in i.op)
            described = i.operands[1] if to_shared else i.operands[0]
            tensor, _, places = described.strip()[1:-1].partition(",")
            coordinates = ", ".join(self.read(p, "i4") for p in listed(places.strip()))
            pointer = self.pointed(f"[{tensor}]")
            if to_shared:
                taps = i.operands[3] if len(i.operands) > 3 and i.operands[3].startswith("{") else ""
                offsets = ", ".join(self.read(p, "u2") for p in listed(taps)) if taps else ""
                to, barrier = self.pointed(i.operands[0]), self.pointed(i.operands[2])
                given = f"{to}, {pointer}, [{coordinates}], {barrier}, [{offsets}]"
                self.lines.append(f"m.bulk.load({at}, {given}, c, {where})")
            else:
                self.lines.append(
                    f"m.bulk.store({at}, {pointer}, [{coordinates}], {self.pointed(i.operands[1])}, c, {where})"
                )
        else:
            raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")

    def op_mbarrier(self, i: Instruction, at: int) -> None:
        place = next(n for n, o in enumerate(i.operands) if o.startswith("["))
        barrier = self.pointed(i.operands[place])
        number = self.read(i.operands[place + 1], "u4") if len(i.operands) > place + 1 else self.constant(np.uint32(1))
        end = f"c, {self.guard(i.guard)})"
        match i.op[1]:
            case "init":
                text = f"begin({barrier}, {number}, {end}"
            case "inval":
                text = f"end({barrier}, {end}"
            case "arrive" | "expect_tx":
                text = f"arrive({barrier}, {number}, {'expect_tx' in i.op}, {i.op[1] == 'arrive'}, {end}"
            case _:
                raise KernelError(f"PTX's instruction is not known to the machine: {i.text}")
        self.lines += [f"with m.within({at}, c, None):", f" m.barriers.{text}"]

    def op_wgmma(self, i: Instruction, at: int) -> None:
        if i.op[1] == "fence":
            return
        if i.op[1] == "commit_group":
            self.lines.append("m.products.close(c)")
        elif i.op[1] == "wait_group":
            self.lines.append(f"m.products.wait({at}, {number(i.operands[0])}, c)")
        else:
            shape = next(o for o in i.op if re.fullmatch(r"m\d+n\d+k\d+", o))
            kinds = i.op[-3:]
            sums = listed(i.operands[0])
            given = "[" + ", ".join(f"m.full({self.read(r, 'u4')}, c)" for r in sums) + "]"
            left = i.operands[1]
            a = (
                "[" + ", ".join(f"m.full({self.read(r, 'u4')}, c)" for r in listed(left)) + "]"
                if left.startswith("{") else f"m.full({self.read(left, 'u8')}, c)"
            )  # fmt: skip
            b = f"m.full({self.read(i.operands[2], 'u8')}, c)"
            add = f"m.full({self.read(i.operands[3], 'b1')}, c)"
            flags = [number(o) for o in i.operands[4:]]  # of A in registers there is nothing to turn
            flags += [1, 1, 0, 0][len(flags) :]
            if left.startswith("{"):
                flags = [*flags[:2], 0, flags[2]]
            found = self.named(
                f"m.products.multiply({at}, '{shape}', {kinds!r}, {given}, {a}, {b}, {add}, {', '.join(map(str, flags[:4]))}, c)"
            )
            for n, register in enumerate(sums):
                self.write(register, f"{found}[{n}]", "u4", i.guard)
