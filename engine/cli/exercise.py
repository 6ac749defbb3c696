"""`ulpgrad exercise`: list, start, check, hint, solution."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.markdown import Markdown
from rich.syntax import Syntax
from rich.text import Text

from ulpgrad.bench import exercises, machine
from ulpgrad.bench.classroom import passed
from ulpgrad.bench.classroom.desk import Desk
from ulpgrad.bench.classroom.exercise import Ratio, Verdict
from ulpgrad.cli.screen import console, progress, table, write_json
from ulpgrad.errors import ArgumentError, DataError, KernelError

FOLDER = Path("exercises")
STYLES = {"passed": "green", "changed": "yellow"}


def show(folder: Path, json: Path | None) -> None:
    """All exercises, in their order, with what became of the answers in a folder."""
    kept = passed.passed(folder)
    rows, data, following = [], [], ""
    for number, (name, exercise) in enumerate(exercises.every().items(), 1):
        reason, before = exercise.unavailable(), kept.get(name)
        state = passed.state(folder / exercises.file_name(name), before)
        words = {"": "", "begun": "begun", "passed": f"passed {before.on if before else ''}",
                 "changed": "changed since it passed"}[state]  # fmt: skip
        said = f"not here: {reason}" if reason and state != "passed" else words
        rows.append((str(number), name, exercise.title, exercise.teaches, Text(said, style=STYLES.get(state, ""))))
        data.append({"name": name, "title": exercise.title, "teaches": exercise.teaches,
                     "hints": len(exercise.hints), "unavailable": reason, "state": state})  # fmt: skip
        if not following and not reason and state != "passed":
            following = name
    out = console()
    out.print(table("Exercises", ("", "name", "task", "idea", ""), rows, right=("",)))
    done = sum(row["state"] == "passed" for row in data)
    said = f"{done} of {len(data)} passed. " if done else ""
    if following:
        verb = "check" if (folder / exercises.file_name(following)).exists() else "start"
        out.print(f"{said}{'Next' if done else 'Begin with'}: ulpgrad exercise {verb} {following}", markup=False)
    else:
        out.print(said.strip())
    write_json(json, data)


def start(name: str, to: Path) -> None:
    exercise = exercises.load(name)
    path = exercises.start(name, to)
    out = console()
    out.print(Text(exercise.title, style="bold"))
    out.print(Markdown(docstring(path.read_text())))
    out.print(f"\nWrite your answer into {path}, then: ulpgrad exercise check {path}", markup=False, soft_wrap=True)
    if reason := exercise.unavailable():
        out.print(f"It cannot be checked on this machine yet: {reason}", markup=False, soft_wrap=True)


def check(which: str | None, exercise: str | None, seed: int | None, limit: float, json: Path | None) -> None:
    """Examine one answer, or all in a folder; status 1 if one is wrong."""
    verdicts = []
    for name, path in _answers(which, exercise):
        verdict = examine(name, path, seed, limit)
        tell(verdict, path)
        verdicts.append(verdict)
        remember(verdict, path)
    write_json(json, [verdict.as_data() for verdict in verdicts])
    if not all(verdict.passed for verdict in verdicts):
        raise typer.Exit(1)


def remember(verdict: Verdict, path: Path) -> None:
    """Keep the verdict for `ulpgrad exercise list`, where the file is one that `start` made; say so if that cannot be."""
    if path.name != exercises.file_name(verdict.exercise):
        return
    try:
        passed.keep(path, verdict.exercise, verdict.seed, verdict.passed)
    except DataError as error:
        console(stderr=True).print(f"Not kept for `ulpgrad exercise list`: {error}", markup=False)


def examine(name: str, path: Path, seed: int | None, limit: float) -> Verdict:
    """Check the answer; if it is right and speed is the point, time it in a process of its own."""
    exercise = exercises.load(name)
    if reason := exercise.unavailable():
        raise KernelError(f"the exercise {name} cannot be checked here: {reason}")
    with progress(None) as step:
        step(f"{name}: checking")
        with Desk() as desk:
            verdict = desk.examine(name, path, seed=seed, limit=limit)
        if verdict.passed and exercise.race is not None:
            step(f"{name}: timing")
            with Desk(checked=False) as desk:
                timed = desk.examine(name, path, seed=verdict.seed, race=True, limit=limit)
            return timed if not timed.passed else Verdict(
                name, True, verdict.seed, stages=verdict.stages, output=verdict.output, ratios=timed.ratios
            )  # fmt: skip
    return verdict


def tell(verdict: Verdict, path: Path) -> None:
    """What was found, and what to do next."""
    out = console()
    exercise = exercises.load(verdict.exercise)
    if verdict.output:
        out.print(Text(f"{path.name} printed:\n{verdict.output}\n", style="dim"))
    if not verdict.passed:
        out.print(Text(f"{verdict.exercise}: not yet, at: {verdict.stage}", style="bold red"))
        out.print(verdict.message, markup=False)
        out.print(Text(
            f"\nThe same values again: --seed {verdict.seed}. "
            f"Hints, in {len(exercise.hints)} steps: ulpgrad exercise hint {verdict.exercise}", style="dim",
        ))  # fmt: skip
        return
    out.print(Text(f"{verdict.exercise}: right", style="bold green"))
    out.print(Text(f"  {len(verdict.stages) - 1} checks: {'; '.join(verdict.stages[1:])}", style="dim"))
    for ratio in verdict.ratios:
        out.print(f"  {_words(ratio)}", markup=False)
    if exercise.race is not None:
        out.print(f"  The goal: {exercise.race.goal}", markup=False)
        if warning := machine.busy():
            console(stderr=True).print(Text(f"Mind: {warning}.", style="bold yellow"))
    following = next((n for n, e in exercises.every().items() if e.rank > exercise.rank), None)
    out.print(Text(
        f"  Compare: ulpgrad exercise solution {verdict.exercise}"
        + (f". Next: ulpgrad exercise start {following}" if following else ""), style="dim",
    ))  # fmt: skip


def _words(ratio: Ratio) -> str:
    return (
        f"{ratio.middle:.2f}x as fast as {ratio.than} ({ratio.low:.2f} to {ratio.high:.2f} in 60 % of the samples): "
        f"{ratio.verdict}"
    )


def hint(name: str, step: int) -> None:
    """The first hints, up to a step."""
    hints = exercises.load(name).hints
    if step > len(hints):
        raise ArgumentError(
            f"{name} has {len(hints)} hints, {step} given; then there is `ulpgrad exercise solution {name}`"
        )
    out = console()
    for number, text in enumerate(hints[:step], 1):
        out.print(Text(f"Hint {number} of {len(hints)}", style="bold"))
        out.print(Markdown(text))
    if step < len(hints):
        out.print(Text(f"More: ulpgrad exercise hint {name} {step + 1}", style="dim"))


def solution(name: str) -> None:
    """The worked solution, highlighted."""
    text = (exercises.folder(name) / "solution.py").read_text()
    out = console()
    shown = Syntax(text, "python", theme="ansi_dark", background_color="default", word_wrap=True)
    out.print(shown if out.is_terminal else Text(text))


def docstring(source: str) -> str:
    """The task: what stands between the first quotation marks."""
    return source.split('"""')[1].strip()


def _answers(which: str | None, exercise: str | None) -> list[tuple[str, Path]]:
    """(exercise, file) of each answer that is meant by a folder's, a file's or an exercise's name, or by none."""
    folder = FOLDER if which is None else Path(which)
    if which is None or folder.is_dir():
        names = [n for n in exercises.every() if (folder / exercises.file_name(n)).exists()]
        if not names:
            raise ArgumentError(
                f"there is no answer in the folder {folder} yet: `ulpgrad exercise start NAME` begins one"
            )
        return [(name, folder / exercises.file_name(name)) for name in names]
    path = Path(which)
    if path.suffix == ".py" or path.exists():
        return [(exercise or path.stem.replace("_", "-"), path)]
    exercises.load(which)
    return [(which.replace("_", "-"), FOLDER / exercises.file_name(which))]
