"""One network in every number system: time, error, memory and traffic of a step side by side, and what training came to.

The network, its data and the systems are those of the study `tradeoff`, whose record, where there is one, says how each learns.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ulpgrad import autograd, nn, ops, optim, random
from ulpgrad.bench import energy
from ulpgrad.bench.lab.plots import plain_ticks
from ulpgrad.bench.lab.training import DATA, network
from ulpgrad.bench.ledger import Work
from ulpgrad.bench.report import Entry
from ulpgrad.bench.studies import tradeoff
from ulpgrad.bench.studies.tradeoff import costs
from ulpgrad.bench.studies.tradeoff.schemes import SCHEMES, Scheme, Stepper
from ulpgrad.bench.suite import charts, view
from ulpgrad.bench.suite.cells import nearest
from ulpgrad.bench.suite.charts import Point
from ulpgrad.bench.suite.precision import small
from ulpgrad.bench.suite.record import OURS, Error, Row, Time
from ulpgrad.bench.suite.sections import duration
from ulpgrad.bench.suite.tables import Figure, Section, Table, Value
from ulpgrad.bench.timing import seconds
from ulpgrad.errors import ArgumentError, DataError
from ulpgrad.kernels.threads import get_num_threads
from ulpgrad.tensor import Tensor

FORWARD, STEP = "network forward", "network step"
BASE = "float32"
WARM = 12  # steps that compile, fill caches, and give delayed scales a history
IN_TURNS = 4
DATASET = "digits"
TEST = "test error"
COMMAND = "ulpgrad bench network"
Told = Callable[[str], None]


@dataclass
class Subject:
    """A network in one system: what runs it forwards, and what makes a step without moving its weights."""

    scheme: Scheme
    model: nn.Module
    optimizer: optim.Optimizer
    stepper: Stepper
    x: Tensor
    y: Tensor

    @classmethod
    def of(cls, name: str, batch_size: int, seed: int) -> Subject:
        scheme = SCHEMES[name]
        random.manual_seed(seed)
        model = network(DATASET)
        x, y = DATA[DATASET]("train", standardize=True)[:batch_size]
        return cls(scheme, model, optim.SGD(model.parameters(), lr=0.0), scheme.make(seed), x, y)

    def forward(self) -> Tensor:
        with autograd.no_grad(), self.stepper.policy or contextlib.nullcontext():
            return self.model(self.x)  # type: ignore[no-any-return]

    def step(self) -> float:
        with self.stepper.policy or contextlib.nullcontext():
            return self.stepper(self.model, self.optimizer, self.x, self.y)

    def gradients(self) -> list[Any]:
        """As they reach the optimizer, in float64."""
        return [p.grad.numpy().astype(np.float64) for p in self.model.parameters() if p.grad is not None]


def exact(batch_size: int, seed: int) -> tuple[Any, list[Any]]:
    """Results and gradients of the same network in float64."""
    subject = Subject.of(BASE, batch_size, seed)
    model = subject.model.to("float64")
    found = model(ops.astype(subject.x, "float64"))
    ops.cross_entropy(found, subject.y).backward()
    return found.detach().numpy(), subject.gradients()


def relative(found: Sequence[Any], wanted: Sequence[Any]) -> float | None:
    """Norm of the difference over the norm of what is wanted; None if it is not finite."""
    off, whole = (sum(float(np.sum(np.square(a, dtype=np.float64))) for a in arrays)
                  for arrays in ([f - w for f, w in zip(found, wanted, strict=True)], wanted))  # fmt: skip
    return float(np.sqrt(off / whole)) if np.isfinite(off) else None


def measure(
    names: Sequence[str] = (), batch_size: int = 100, samples: int = 20, seed: int = 0, told: Told = lambda name: None
) -> list[Row]:
    """Two rows for each system: forward, and a whole training step. ArgumentError for a system that does not exist."""
    for name in names:
        if name not in SCHEMES:
            near = nearest(name, SCHEMES)
            raise ArgumentError(
                f"there is no number system {name!r}; did you mean {near}? There are {', '.join(SCHEMES)}"
            )
    chosen = list(names) or list(SCHEMES)
    results, gradients = exact(batch_size, seed)
    work = tradeoff.work(DATASET, batch_size)
    found: dict[str, tuple[Subject, float, float | None, float | None]] = {}
    for name in chosen:
        told(SCHEMES[name].label)
        subject = Subject.of(name, batch_size, seed)
        start = time.perf_counter()
        subject.step()
        first = time.perf_counter() - start
        for _ in range(WARM):
            subject.step()
        off = relative([subject.forward().numpy().astype(np.float64)], [results])
        found[name] = subject, first, off, relative(subject.gradients(), gradients)
    times: dict[tuple[str, str], list[float]] = {(name, op): [] for name in chosen for op in (FORWARD, STEP)}
    for _ in range(IN_TURNS):
        for name in chosen:
            told(f"{SCHEMES[name].label}, time")
            for op, call in ((FORWARD, found[name][0].forward), (STEP, found[name][0].step)):
                times[name, op] += [seconds(call) for _ in range(max(1, samples // IN_TURNS))]
    return [
        _row(op, subject.scheme, Time.of(times[name, op]), first if op == STEP else None, off, work, batch_size)
        for name, (subject, first, *errors) in found.items() for op, off in zip((FORWARD, STEP), errors, strict=True)
    ]  # fmt: skip


def _row(
    op: str, scheme: Scheme, taken: Time, first: float | None, off: float | None, work: Work, batch_size: int
) -> Row:
    is_step = op == STEP
    kept = costs.kept(scheme, work)
    return Row(
        op, scheme.label, batch_size, "cpu", OURS, None, get_num_threads(), "measured", chosen=True, counts="images",
        time=taken, first=first, flops=float(work.operations if is_step else 2 * work.forward),
        memory=int(sum(kept[f"{kind}_bytes"] for kind in ("weight", "activation", "gradient")) if is_step
                   else work.weights * energy.stored_bits(scheme.weight) / 8),
        bits=energy.stored_bits(scheme.weight), traffic=costs.moved(scheme, work) if is_step else None,
        error=Error(off, None, None),
    )  # fmt: skip


def bit_operations(scheme: Scheme, work: Work) -> float:
    """Of a step's products: multiply-adds times the bits of both operands."""
    w, a, g = (energy.stored_bits(f) for f in (scheme.weight, scheme.activation, scheme.gradient))
    return work.forward * w * a + work.backward_x * w * g + work.backward_w * a * g


def outcomes(path: Path) -> dict[str, float]:
    """Test errors by label, from what the study `tradeoff` has written. DataError for another file."""
    try:
        data = json.loads(path.read_text())
        if data["study"] != "tradeoff":
            raise ValueError(f"the study {data['study']}")
        return {
            row["label"]: row["test_error"]["mean"] for row in data["summary"] if row["test_error"]["mean"] is not None
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: expected the JSON file of `ulpgrad study tradeoff` ({error})") from None


# What is shown


def sections(rows: Sequence[Row], learnt: Mapping[str, float], command: str = COMMAND) -> list[Section]:
    """Side by side, the fronts, and what training came to."""
    pairs = _pairs(rows)
    step = next(iter(pairs.values()))[1]
    work = tradeoff.work(DATASET, step.size or 1)
    table = side_by_side(pairs, learnt, work)
    words = (
        f"A network of dense layers (64-256-256-10) on {step.size} images in {view.many(len(pairs), 'number system')}, with "
        "the same weights and images. Errors are against the same network in float64: of its results, and of the gradients that "
        "reach the optimizer. Memory and traffic are counted in the bits of each format; times are measured here, where most "
        "formats are emulated: values are rounded to the format's grid and multiplied in float32."
    )
    made = [Section("Side by side", (words,), (table,))]
    fronts = [
        _front(f"{title} against time", [(view.seconds(row), row) for row in both], command, "seconds", charts.brief)
        for title, both in (("Error of the results", [p[0] for p in pairs.values()]),
                            ("Error of the gradients", [p[1] for p in pairs.values()]))
    ]  # fmt: skip
    fronts.append(_front("Error of the gradients against traffic", [(p[1].traffic or 1.0, p[1]) for p in pairs.values()],
                         command, "bytes read and written in a step", view.size_of))  # fmt: skip
    made.append(Section("Error against cost", ("Dashed: the front, where nothing is better in both.",), tuple(fronts)))
    known = [label for label in pairs if label in learnt]
    if known:
        systems = {s.label: s for s in SCHEMES.values()}
        costs_of: tuple[tuple[str, Callable[[str], float], Callable[[float], str]], ...] = (
            ("bytes read and written in a step", lambda name: costs.moved(systems[name], work), view.size_of),
            ("G bit operations of a step", lambda name: bit_operations(systems[name], work) / 1e9, lambda v: f"{v:g}"),
            (
                "energy of a step by the model, µJ",
                lambda name: costs.spent(systems[name], work).total,
                lambda v: f"{v:g}",
            ),
        )
        figures = [
            _outcome(label, [(cost(name), learnt[name], name) for name in known], text, command)
            for label, cost, text in costs_of
        ]
        told = (
            "Test errors of the study “tradeoff”, which trains this network in each system. Bit operations: multiply-adds times "
            "the bits of both operands. The energy follows a published table and our interpolation, which the study states."
        )
        made.append(Section("What training came to", (told,), tuple(figures)))
    return made


def _pairs(rows: Sequence[Row]) -> dict[str, tuple[Row, Row]]:
    by = {(row.format, row.op): row for row in rows}
    return {name: (by[name, FORWARD], by[name, STEP]) for name in dict.fromkeys(row.format for row in rows)}


def side_by_side(pairs: Mapping[str, tuple[Row, Row]], learnt: Mapping[str, float], work: Work) -> Table:
    """Speed, error, memory, traffic, energy, and outcome where it is known."""
    columns = ("system", "forward", "step", "error of results", "of gradients", "bits", "memory", "traffic",
               "G bit operations", *([TEST] if learnt else []))  # fmt: skip
    systems = {s.label: s for s in SCHEMES.values()}
    lines: list[list[Value]] = []
    for name, (forward, step) in pairs.items():
        count = bit_operations(systems[name], work)
        lines.append([
            name, duration(forward), duration(step), small(forward.error.relative if forward.error else None),
            small(step.error.relative if step.error else None), Entry(f"{step.bits:g}", step.bits),
            Entry(view.size_of(step.memory), step.memory), Entry(view.size_of(step.traffic), step.traffic),
            Entry(view.figure(count / 1e9), count),
            *([Entry(f"{learnt[name]:.2%}", learnt[name]) if name in learnt else ""] if learnt else []),
        ])  # fmt: skip
    return Table("A step of the network", columns, lines, columns[1:])


def _front(
    title: str, found: Sequence[tuple[float, Row]], command: str, x_label: str, text: Callable[[float], str]
) -> Figure:
    errors = [(x, row.format, row.error.relative) for x, row in found if row.error]
    points = [Point(x, off, name, OURS) for x, name, off in errors if off is not None]
    lines: list[list[Value]] = [[p.name, Entry(text(p.x), p.x), small(p.y)] for p in points]
    table = Table("", ("system", x_label, "relative error"), lines, (x_label, "relative error"))
    return Figure(
        title, partial(_draw, points, x_label, "relative error", text), table, command, "", charts.BROAD, wide=True
    )


def _outcome(
    label: str, found: Sequence[tuple[float, float, str]], text: Callable[[float], str], command: str
) -> Figure:
    points = [Point(x, y, name, OURS) for x, y, name in found]
    lines: list[list[Value]] = [[p.name, Entry(text(p.x), p.x), Entry(f"{p.y:.2%}", p.y)] for p in points]
    table = Table("", ("system", label, "test error"), lines, (label, "test error"))
    return Figure(f"Test error against {label}", partial(_draw, points, label, TEST, text), table,
                  f"ulpgrad study tradeoff && {command}", "", charts.BROAD, wide=True)  # fmt: skip


def _draw(points: Sequence[Point], x_label: str, y_label: str, text: Callable[[float], str], axes: Any) -> None:
    charts.pareto(axes, points, x_label, y_label, text)
    if y_label == TEST:
        plain_ticks(axes.yaxis, share=True)


__all__ = ["FORWARD", "STEP", "bit_operations", "exact", "measure", "outcomes", "relative", "sections", "side_by_side"]
