"""The process in which answers are examined: requests come as lines of JSON, events go back the same way.

The answer's own output goes to the standard error, so that it cannot mix with the events.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ulpgrad.bench import exercises
from ulpgrad.bench.classroom.exercise import Exercise
from ulpgrad.bench.classroom.trial import Trial, Wrong

ROUNDS = 2  # the same shapes with other values: a remembered result fails in the second
OPERATORS: dict[type, str] = {ast.MatMult: "@", ast.Div: "/"}
NAMES: dict[type, str] = {ast.Name: "id", ast.Attribute: "attr", ast.alias: "name", ast.keyword: "arg"}
LINES = 14  # of a long message, such as Numba's about types
AGAIN = "\n\nA first round of calls with other values came out right: does the answer depend on what it was called with before?"


def main() -> None:
    requests, events = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)  # what asks for input gets none
    os.dup2(2, 1)

    def tell(**event: Any) -> None:
        events.write(json.dumps(event) + "\n")

    for line in requests:
        request = json.loads(line)
        message = examine(request, lambda text: tell(stage=text), lambda ratios: tell(ratios=ratios))
        sys.stdout.flush()
        sys.stderr.flush()
        tell(done=True, message=message)


def examine(request: Mapping[str, Any], told: Callable[[str], None], raced: Callable[[list[Any]], None]) -> str:
    """What is wrong with the answer, or nothing."""
    exercise, path = exercises.load(request["exercise"]), Path(request["path"])
    round_ = 0
    try:
        told("reading the file")
        refuse(exercise, path.read_text())
        answer = imported(path)
        lacking = [name for name in exercise.asks if not callable(getattr(answer, name, None))]
        if lacking:
            return f"{path.name} defines no function {lacking[0]!r}; the exercise asks for {', '.join(exercise.asks)}"
        if request["race"]:
            assert exercise.race is not None
            told("timing")
            found = exercise.race.run(answer, np.random.default_rng(request["seed"]))
            raced([[r.than, r.middle, r.low, r.high] for r in found])
            return ""
        for round_ in range(ROUNDS):
            with np.errstate(all="ignore"):
                exercise.check(Trial(answer, np.random.default_rng([request["seed"], round_]), told))
    except Wrong as error:
        return str(error) + (AGAIN if round_ else "")
    except NotImplementedError as error:
        return f"{error or 'this'}: not written yet. The docstring of {path.name} says what to do."
    except (Exception, SystemExit) as error:
        return raised(error, path)
    return ""


def refuse(exercise: Exercise, source: str) -> None:
    """Raise Wrong where the file uses what does the exercise's work for it."""
    for node in ast.walk(ast.parse(source)):
        name = ""
        if isinstance(node, (ast.BinOp, ast.AugAssign)):
            name = OPERATORS.get(type(node.op), "")
        elif type(node) in NAMES:
            name = getattr(node, NAMES[type(node)])
        if name in exercise.forbids:
            line = getattr(node, "lineno", 0)
            raise Wrong(f"line {line}: {name} is left out in this exercise. {exercise.forbids[name]}")


def imported(path: Path) -> ModuleType:
    """The file as a module."""
    spec = importlib.util.spec_from_file_location(f"answer_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def raised(error: BaseException, path: Path) -> str:
    """An exception of the answer: where in the file, and what."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    text = str(error).strip().splitlines()
    if isinstance(error, SyntaxError):
        lines, text = [error.lineno], [error.msg]
    where = f"line {lines[-1]} of {path.name}: " if lines else ""
    shown = "\n".join(text[:LINES] + (["..."] if len(text) > LINES else []))
    hint = ""
    if isinstance(error, IndexError):
        hint = "\nCompiled kernels check their indices here, and nowhere else: outside, this reads or overwrites other memory."
    return f"{where}{type(error).__name__}: {shown}{hint}"


if __name__ == "__main__":
    main()
