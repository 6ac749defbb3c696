"""What an exercise is, and what is said of an answer to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ulpgrad.kernels import capabilities

if TYPE_CHECKING:
    from ulpgrad.bench.classroom.race import Race
    from ulpgrad.bench.classroom.trial import Trial


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that is likely: the solution with pieces of its text replaced, and a pattern that the message matches."""

    name: str
    edits: Mapping[str, str]
    says: str


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise.

    - `rank`: its place in the order. `teaches`: the idea, in a sentence.
    - `asks`: functions that the answer defines. `check(trial)`: raises Wrong unless they are right.
    - `hints`: each goes a step further. `mistakes`: at least three.
    - `requires`: capabilities of the machine. `forbids`: names, and the operators @ and /, that do the exercise's work, with
      what to do instead.
    - `race`: where speed is the point, what the answer is timed against, in the same run.
    """

    rank: int
    title: str
    teaches: str
    asks: Sequence[str]
    check: Callable[[Trial], None]
    hints: Sequence[str]
    mistakes: Sequence[Mistake]
    requires: Sequence[str] = ()
    forbids: Mapping[str, str] = field(default_factory=dict)
    race: Race | None = None

    def unavailable(self) -> str | None:
        """Why this machine cannot run answers, or None."""
        return next((reason for name in self.requires if (reason := capabilities.missing(name))), None)


@dataclass(frozen=True)
class Ratio:
    """How many times as fast the answer is as a contender: the middle, and the 20th to 80th percentile of paired samples."""

    than: str
    middle: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """In a word; a difference inside the noise is none."""
        return "faster" if self.low > 1 else "slower" if self.high < 1 else "no difference beyond the noise"


@dataclass(frozen=True)
class Verdict:
    """What came of an answer. `message` says what is wrong, `stage` where; `output` is what the answer printed."""

    exercise: str
    passed: bool
    seed: int
    message: str = ""
    stage: str = ""
    stages: tuple[str, ...] = ()
    output: str = ""
    ratios: tuple[Ratio, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "exercise": self.exercise, "passed": self.passed, "seed": self.seed, "message": self.message,
            "stage": self.stage, "stages": list(self.stages),
            "ratios": [{"than": r.than, "ratio": r.middle, "p20": r.low, "p80": r.high, "verdict": r.verdict}
                       for r in self.ratios],
        }  # fmt: skip


__all__ = ["Exercise", "Mistake", "Ratio", "Verdict"]
