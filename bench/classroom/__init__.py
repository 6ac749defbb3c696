"""The classroom: what an exercise is, how an answer to it is examined, and what a kernel does to memory.

An exercise is one folder, `bench/exercises/<name>/`, found by its name:

    __init__.py    EXERCISE = Exercise(...): the checker, hints, and the wrong answers that are likely
    stub.py        the task, as its docstring, and the functions to write: what `ulpgrad exercise start` hands out
    solution.py    a worked answer, whose docstring says why it is right

The checker is a function of a `Trial`. It draws fresh operands from `trial.rng`, calls the answer with `trial.call(name, ...)`
and compares with the project's own specs: `trial.against(op, ...)` in the ULPs that the op allows its rungs, `trial.near` and
`trial.same` with values of a format. It runs twice with the same shapes and other values, so that an answer which remembers
its first result fails. `suspects` are wrong results with the sentence that leads on from each; `trial.trace` runs a Numba
kernel as plain Python on arrays that record every access, so that memory traffic, cache misses and races are counted, not
timed. Each `Mistake` is an edit of the solution that must fail with a message that says what is wrong: tests see to it, as
they do to stubs, zeros and remembered results.

Answers run in a process of their own (`desk.Desk`), with a time limit; compiled code checks its indices there.
"""

from ulpgrad.bench.classroom.exercise import Exercise, Mistake, Verdict
from ulpgrad.bench.classroom.race import Race
from ulpgrad.bench.classroom.trace import Traced
from ulpgrad.bench.classroom.trial import Trial, Wrong

__all__ = ["Exercise", "Mistake", "Race", "Traced", "Trial", "Verdict", "Wrong"]
