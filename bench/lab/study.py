"""What a study is: rows to compare, a function that runs one of them, and how its figures are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ulpgrad.bench.lab.plots import Plot
from ulpgrad.bench.lab.results import MAIN, Figures, NotRun, Results, estimate
from ulpgrad.errors import ArgumentError

QUICK_EPOCHS = 3
MNIST_PASSES = 12  # an MNIST epoch has 46 times the images of the digits: that many epochs fewer by default
DATASETS = ("digits", "mnist")
SETUP = (
    "A network of dense layers with ReLU (64-256-256-10) learns handwritten digits by plain stochastic gradient descent. Rows "
    "of one seed start from the same weights and see the same images in the same order: what differs comes from the numbers."
)


class Told(Protocol):
    """Hears what is going on; `done` with each run that is finished."""

    def __call__(self, text: str, *, done: bool = False) -> None: ...


@dataclass(frozen=True)
class Row:
    """One variant. `setting` is what the study's `run` needs to make it; `meaning` explains it in a sentence or two.

    Rows of one `group` stand in one table under that title. `tags` are chosen by: {"format": "q5.10"} for --formats.
    """

    label: str
    setting: Any = None
    meaning: str = ""
    group: str = ""
    epochs: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One row, one seed: what `Study.run` gets. `told` takes a few words of progress, such as "epoch 3"."""

    row: str
    setting: Any
    seed: int
    epochs: int
    batch_size: int
    data: str
    told: Callable[[str], None] = lambda text: None

    @property
    def arguments(self) -> dict[str, Any]:
        """What the result depends on, besides the code."""
        return {
            "row": self.row,
            "seed": self.seed,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "data": self.data,
        }


@dataclass(frozen=True)
class Options:
    """What is run. `epochs` None: each row's own."""

    rows: tuple[str, ...]
    seeds: int
    epochs: int | None
    batch_size: int
    data: str


@dataclass(frozen=True)
class Column:
    """A column of the table: the text for one row's runs. `right`: figures, aligned right."""

    name: str
    text: Callable[[Sequence[Figures]], str]
    right: bool = True


@dataclass(frozen=True)
class Check:
    """A sentence that the results are to bear out. NotRun inside `holds` leaves it open."""

    text: str
    holds: Callable[[Results], bool]

    def verdict(self, results: Results) -> bool | None:
        """Whether it holds; None if rows are missing."""
        try:
            return bool(self.holds(results))
        except NotRun:
            return None


class Table(NamedTuple):
    """Title, names of columns, rows of text, names of the columns that are aligned right."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study's declaration; see the docstring of `ulpgrad.bench.lab`.

    `setup` stands under the title of the page: what is done, and to what. `expected`: row -> figure -> value that an
    earlier, independent trial found. `quick`: rows of a --quick call (None: all). `minutes`: what it all takes on one core.
    `see`, `checks` and `expected` speak of the whole study only (its own epochs, batch size and data); `short_see` of others.
    """

    title: str
    source: str
    claim: str
    rows: Mapping[str, Row]
    run: Callable[[Run], Figures]
    columns: Sequence[Column]
    setup: str = SETUP
    plots: Sequence[Plot] = ()
    see: Sequence[Callable[[Results], str | Sequence[str]]] = ()
    short_see: Sequence[Callable[[Results], str | Sequence[str]]] = ()
    checks: Sequence[Check] = ()
    expected: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    expected_from: str = "a dry run of one seed on another split of the digits, its batch size not recorded"
    sections: Sequence[Callable[[Results], tuple[str, str]]] = ()
    note: str = ""
    first_column: str = "row"
    figure: str = MAIN
    seeds: int = 3
    epochs: int | None = 60
    quick: Sequence[str] | None = None
    quick_epochs: int = QUICK_EPOCHS
    batch_size: int = 32
    datasets: Sequence[str] = DATASETS
    minutes: float = 1.0

    def options(self, given: Mapping[str, Any], *, quick: bool = False) -> Options:
        """Options as the command line has them, lists with commas. ArgumentError for what there is not."""
        values = dict(given)
        rows = self._names("rows", values.pop("rows", None), list(self.rows)) or list(self.rows)
        if quick and self.quick is not None and "rows" not in given:
            rows = list(self.quick)
        for key in ("formats", "models"):
            known = list(dict.fromkeys(row.tags[key[:-1]] for row in self.rows.values() if key[:-1] in row.tags))
            chosen = self._names(key, values.pop(key, None), known)
            if chosen is not None:
                rows = [name for name in rows if self.rows[name].tags.get(key[:-1]) in chosen]
        if not rows:
            raise ArgumentError("no row is left of those chosen: give fewer of --rows, --formats, --models")
        if self.epochs is None and "epochs" in values:
            raise ArgumentError("--epochs: this study trains nothing")
        data = values.pop("data", None) or (self.datasets[0] if self.datasets else "")
        if data and data not in self.datasets:
            raise ArgumentError(f"--data: {data!r} given, this study takes {', '.join(self.datasets) or 'no data set'}")
        return Options(
            rows=tuple(rows),
            seeds=values.pop("seeds", 1 if quick else self.seeds),
            epochs=values.pop("epochs", self.quick_epochs if quick else None),
            batch_size=values.pop("batch_size", self.batch_size),
            data=data,
        )

    @staticmethod
    def _names(key: str, given: str | None, known: Sequence[str]) -> list[str] | None:
        if given is None:
            return None
        asked = list(dict.fromkeys(part.strip() for part in given.split(",") if part.strip()))
        unknown = [name for name in asked if name not in known]
        if unknown or not asked:
            named = repr(unknown[0]) if unknown else "nothing"
            raise ArgumentError(
                f"--{key}: {named} given, expected some of {', '.join(known) or 'none: not chosen by here'}"
            )
        return asked

    def runs(self, options: Options) -> list[Run]:
        """Every run, in the order of the table."""
        return [
            Run(name, self.rows[name].setting, seed, self._epochs(options, name), options.batch_size, options.data)
            for name in options.rows
            for seed in range(options.seeds)
        ]

    def is_whole(self, options: Options) -> bool:
        """Whether rows are trained as the study means it, so that its claims can be judged."""
        return (options.epochs, options.batch_size, options.data) == (None, self.batch_size, (*self.datasets, "")[0])

    def _epochs(self, options: Options, row: str) -> int:
        if self.epochs is None or options.epochs is not None:
            return options.epochs or 0
        own = self.rows[row].epochs or self.epochs
        return -(-own // MNIST_PASSES) if options.data == "mnist" else own

    def tables(self, results: Results) -> list[Table]:
        """The figures of each row, one table for each group; then those that were expected."""
        names = [self.first_column, *(c.name for c in self.columns)]
        right = [c.name for c in self.columns if c.right]
        made = []
        for group in dict.fromkeys(self.rows[row].group for row in results.rows):
            own = [row for row in results.rows if self.rows[row].group == group]
            lines = [(self.rows[r].label, *(_cell(c, results.of(r)) for c in self.columns)) for r in own]
            shown = [i for i in range(len(names)) if any(line[i] for line in lines)]
            made.append(Table(group, [names[i] for i in shown], [[line[i] for i in shown] for line in lines], right))
        return made + self._against(results)

    def _against(self, results: Results) -> list[Table]:
        lines = []
        for row, figures in self.expected.items() if results.whole else ():
            for figure, value in figures.items() if row in results.rows else ():
                found = results.estimate(row, figure)
                lines.append((self.rows[row].label, figure.replace("_", " "), _share(found.mean), _share(value),
                              f"{100 * (found.mean - value):+.2f} points"))  # fmt: skip
        columns = (self.first_column, "figure", "here", "expected", "difference")
        return [Table("Beside the dry run", columns, lines, columns[2:])] if lines else []

    def verdicts(self, results: Results) -> list[tuple[str, bool | None]]:
        """What was to be shown, and whether it is; None where rows are missing, or training was another."""
        return [(check.text, check.verdict(results) if results.whole else None) for check in self.checks]

    def paragraphs(self, results: Results) -> list[str]:
        """What to see: the claim, then the sentences that these figures bear out."""
        made = [self.claim]
        if not results.whole and self.checks:
            made.append("This is a short or altered run: whether the claim holds is judged on the whole study only.")
        for sentences in self.see if results.whole else self.short_see:
            try:
                found = sentences(results)
            except NotRun:
                continue
            made += [found] if isinstance(found, str) else found
        return [text for text in made if text]


def _cell(column: Column, runs: Sequence[Figures]) -> str:
    """The column's text; nothing where these runs have no such figure."""
    try:
        return column.text(runs)
    except NotRun:
        return ""


def _share(value: float) -> str:
    return f"{value:.2%}"


def percent(name: str, figure: str) -> Column:
    """A share: mean and 95 % interval over seeds, "2.02% ± 0.31"."""
    return Column(name, lambda runs: _text(runs, figure, lambda v: f"{v:.2%}", lambda h: f"{100 * h:.2f}"))


def number(name: str, figure: str, digits: int = 3) -> Column:
    """A number: mean and 95 % interval over seeds."""
    return Column(name, lambda runs: _text(runs, figure, lambda v: _number(v, digits), lambda h: _number(h, 2)))


def span(name: str, figure: str, form: str = "{:.1%}") -> Column:
    """The smallest and the largest value over seeds."""

    def text(runs: Sequence[Figures]) -> str:
        values = estimate(runs, figure).values
        return f"{form.format(min(values))} to {form.format(max(values))}" if values else "not finite"

    return Column(name, text)


def diverged(name: str = "first not finite") -> Column:
    """When a training first left the finite numbers: the earliest over seeds, of `first_not_finite`."""

    def text(runs: Sequence[Figures]) -> str:
        if any("first_not_finite" not in r for r in runs):
            raise NotRun("first_not_finite")
        found = [r["first_not_finite"] for r in runs if r["first_not_finite"] is not None]
        if not found:
            return "never"
        first = min(found, key=lambda one: one["step"])
        seeds = f" ({len(found)} of {len(runs)} seeds)" if len(found) < len(runs) else ""
        return f"step {first['step']}, {first['where']}{seeds}"

    return Column(name, text, right=False)


def _number(value: float, digits: int) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.{digits}g}"


def _text(runs: Sequence[Figures], figure: str, value: Callable[[float], str], half: Callable[[float], str]) -> str:
    found = estimate(runs, figure)
    if not found.values:
        return "not finite"
    text = value(found.mean) + (f" ± {half(found.half)}" if found.half is not None else "")
    return f"{text} ({found.lost} not finite)" if found.lost else text


__all__ = [
    "Check",
    "Column",
    "Options",
    "Row",
    "Run",
    "Study",
    "Table",
    "Told",
    "diverged",
    "number",
    "percent",
    "span",
]
