"""What the runs of a study have found, by row: means over seeds with their confidence intervals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Figures = dict[str, Any]
MAIN = "test_error"

# Student's t for a two-sided 95 % interval, by degrees of freedom from 1; beyond the table the normal value is 2 % off.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
           2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)  # fmt: skip
NORMAL = 1.960


class NotRun(KeyError):
    """A row was asked for that is not among the runs, or a figure that its runs do not have."""


@dataclass(frozen=True)
class Estimate:
    """Values of one figure over seeds: those that are finite, and how many were not."""

    values: tuple[float, ...]
    lost: int = 0

    @property
    def mean(self) -> float:
        """The mean; NaN if no value is finite."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def half(self) -> float | None:
        """Half the width of the 95 % confidence interval of the mean (Student's t); None for fewer than two values."""
        n = len(self.values)
        if n < 2:
            return None
        t = STUDENT[n - 2] if n - 2 < len(STUDENT) else NORMAL
        return t * statistics.stdev(self.values) / math.sqrt(n)

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {"mean": self.mean if self.values else None, "half_95": self.half, "values": list(self.values)} | (
            {"not_finite": self.lost} if self.lost else {}
        )


class Results:
    """All runs of a study, in order; each is a dict with `row`, `label`, `seed` and the study's figures.

    `whole`: trained as the study means it, so that its claims can be judged.
    """

    def __init__(self, runs: Iterable[Figures], *, whole: bool = True) -> None:
        self.runs = list(runs)
        self.whole = whole

    @property
    def rows(self) -> list[str]:
        """Names of the rows that were run, in order."""
        return list(dict.fromkeys(r["row"] for r in self.runs))

    @property
    def seeds(self) -> int:
        """How many seeds."""
        return len({r["seed"] for r in self.runs})

    def of(self, row: str) -> list[Figures]:
        """The runs of a row. NotRun if there are none."""
        found = [r for r in self.runs if r["row"] == row]
        if not found:
            raise NotRun(row)
        return found

    def label(self, row: str) -> str:
        """How the row is called."""
        return str(self.of(row)[0]["label"])

    def estimate(self, row: str, figure: str = MAIN) -> Estimate:
        """A figure of a row over seeds."""
        return estimate(self.of(row), figure)

    def mean(self, row: str, figure: str = MAIN) -> float:
        """Its mean."""
        return self.estimate(row, figure).mean

    def curve(self, row: str, figure: str) -> list[float]:
        """A figure that is a list (over epochs): means over seeds, NaN where no seed has a finite value."""
        if any(figure not in r for r in self.of(row)):
            raise NotRun(figure)
        lists = [r[figure] for r in self.of(row)]
        return [Estimate(*_finite([one[i] for one in lists if i < len(one)])).mean for i in range(max(map(len, lists)))]


def estimate(runs: Sequence[Figures], figure: str) -> Estimate:
    """A figure over the runs given. NotRun if theirs is another kind of row, which has no such figure."""
    if any(figure not in r for r in runs):
        raise NotRun(figure)
    return Estimate(*_finite([r[figure] for r in runs]))


def _finite(values: Sequence[float | None]) -> tuple[tuple[float, ...], int]:
    kept = tuple(float(v) for v in values if v is not None and math.isfinite(v))
    return kept, len(values) - len(kept)


def plain(value: Any) -> Any:
    """Figures as JSON has them: NumPy's numbers become Python's, what is not finite None, tuples and arrays lists."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


__all__ = ["MAIN", "Estimate", "Figures", "NotRun", "Results", "estimate", "plain"]
