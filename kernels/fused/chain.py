"""A chain: elementwise ops on numbered values, as data. Values are the operands, then constants, then one for each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ulpgrad.kernels.elementwise.table import ROWS


class Step(NamedTuple):
    """One op: the values it reads and its parameters."""

    op: str
    sources: tuple[int, ...]
    params: tuple[tuple[str, Any], ...] = ()

    @property
    def formula(self) -> str:
        """That of its row and variant; empty if its op has none."""
        row, params = ROWS[self.op], dict(self.params)
        return row.formulas().get(f"{row.name}_{params[row.choice]}" if row.choice else row.name, "")


@dataclass(frozen=True, eq=False, repr=False)
class Chain:
    """`steps` on `operands` values and `constants`; `results` are the values that are given back, each that of a step.

    Chains are told apart by identity, so that a plan is looked up without comparing steps.
    """

    name: str
    operands: int
    constants: tuple[float, ...]
    steps: tuple[Step, ...]
    results: tuple[int, ...]

    def __repr__(self) -> str:
        return f"<chain {self.name}: {', '.join(step.op for step in self.steps)}>"

    @property
    def flops(self) -> float:
        """Arithmetic per element, as the table of elementwise ops counts it."""
        return sum(ROWS[step.op].flops for step in self.steps)

    def mixing_bools(self) -> str | None:
        """The op of the first step that reads a comparison as a number, or a number as a condition; None if none does."""
        is_bool = [False] * (self.operands + len(self.constants))
        for step in self.steps:
            row = ROWS[step.op]
            if [is_bool[s] for s in step.sources] != [row.name == "where" and k == 0 for k in range(len(step.sources))]:
                return row.name
            is_bool.append(row.gives == "bool")
        return None

    def is_like(self, other: Chain) -> bool:
        """Whether both do the same."""
        mine, theirs = (
            (c.operands, tuple(map(repr, c.constants)), c.steps, c.results) for c in (self, other)
        )  # by repr: -0.0 and NaN are told apart as well
        return mine == theirs


class Builder:
    """Collects the steps of a chain. Values are handles that `chain` numbers; what no result needs is left out."""

    def __init__(self, operands: int) -> None:
        self.operands = operands
        self.constants: list[float] = []
        self.steps: list[tuple[str, tuple[Any, ...], tuple[tuple[str, Any], ...]]] = []

    def constant(self, value: float) -> tuple[str, int]:
        for i, known in enumerate(self.constants):
            if repr(known) == repr(value):
                return "constant", i
        self.constants.append(value)
        return "constant", len(self.constants) - 1

    def operand(self, position: int) -> tuple[str, int]:
        return "operand", position

    def step(self, op: str, sources: Sequence[tuple[str, int]], params: Mapping[str, Any]) -> tuple[str, int]:
        self.steps.append((op, tuple(sources), tuple(params.items())))
        return "step", len(self.steps) - 1

    def chain(self, name: str, results: Sequence[tuple[str, int]], operands: int | None = None) -> Chain:
        """The chain that gives these values, of the first so many operands (default: all). A result that is no step's, or
        is given twice, becomes a step of its own."""
        operands = self.operands if operands is None else operands
        wanted: list[tuple[str, int]] = []
        for handle in results:
            wanted.append(
                handle if handle[0] == "step" and handle not in wanted else self.step("positive", [handle], {})
            )
        needed: set[tuple[str, int]] = set(wanted)
        for i in reversed(range(len(self.steps))):
            if ("step", i) in needed:
                needed.update(self.steps[i][1])
        constants = [i for i in range(len(self.constants)) if ("constant", i) in needed]
        steps = [i for i in range(len(self.steps)) if ("step", i) in needed]
        number: dict[tuple[str, int], int] = {("operand", i): i for i in range(operands)}
        for kind, kept in (("constant", constants), ("step", steps)):
            for i in kept:
                number[kind, i] = len(number)
        made = [
            Step(op, tuple(number[s] for s in sources), params)
            for op, sources, params in (self.steps[i] for i in steps)
        ]
        values = tuple(self.constants[i] for i in constants)
        return Chain(name, operands, values, tuple(made), tuple(number[r] for r in wanted))
