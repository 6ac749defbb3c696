"""Every exercise: its solution passes; its stub, zeros, remembered results and likely mistakes fail, and are told why."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ulpgrad.bench import exercises
from ulpgrad.bench.classroom import Trial, Wrong, passed
from ulpgrad.bench.classroom.desk import Desk
from ulpgrad.bench.classroom.exercise import Exercise, Ratio
from ulpgrad.bench.classroom.trace import traced
from ulpgrad.bench.classroom.worker import imported
from ulpgrad.errors import ArgumentError, DataError
from ulpgrad.kernels import capabilities

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner, Result

from ulpgrad.cli.app import app

EVERY = exercises.every()
NAMED = [pytest.param(name, exercise, id=name) for name, exercise in EVERY.items()]
LIMIT, SEED = 120.0, 0

# Appended to a solution: an answer that gives zeros of the right shape, and one that repeats what it gave first.
SPOILT = """

def _spoilt(function, keep):
    import copy

    import numpy as np

    import ulpgrad as ug

    kept = {{}}

    def cleared(value):
        if isinstance(value, tuple):
            return tuple(map(cleared, value))
        if isinstance(value, ug.Tensor):
            return ug.zeros_like(value)
        return np.zeros_like(value) if isinstance(value, np.ndarray) else type(value)()

    def sized(value):
        shape = getattr(value, "shape", None)
        return (type(value).__name__, shape if shape is not None else "" if isinstance(value, float) else repr(value))

    def spoilt(*args, **params):
        key = repr([sized(a) for a in (*args, *params.values())])
        if key not in kept or not keep:
            before = [copy.deepcopy(a) if isinstance(a, np.ndarray) else None for a in args]
            made = function(*args, **params)
            written = {{i: args[i].copy() for i, a in enumerate(before) if a is not None and a.tobytes() != args[i].tobytes()}}
            kept[key] = made if isinstance(made, ug.Tensor) else copy.deepcopy(made), written
        made, written = kept[key]
        for i, values in written.items():
            args[i][...] = values if keep else 0
        return made if keep else cleared(made)

    return spoilt


for _name in {asks!r}:
    globals()[_name] = _spoilt(globals()[_name], {keep})
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="session")
def plain() -> Iterator[Desk]:
    """Numba's kernels as plain Python: wrong answers are wrong there too, and need no compiling."""
    with Desk(environment={"NUMBA_DISABLE_JIT": "1"}) as desk:
        yield desk


@pytest.fixture(scope="session")
def compiled() -> Iterator[Desk]:
    with Desk() as desk:
        yield desk


def needs(exercise: Exercise) -> None:
    if reason := exercise.unavailable():
        pytest.skip(reason)


def solution(name: str) -> str:
    return (exercises.folder(name) / "solution.py").read_text()


def edited(text: str, edits: dict[str, str]) -> str:
    for old, new in edits.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the solution"
        text = text.replace(old, new)
    return text


@pytest.mark.parametrize(("name", "exercise"), NAMED)
def test_solution_is_right(name: str, exercise: Exercise, compiled: Desk) -> None:
    needs(exercise)
    verdict = compiled.examine(name, exercises.folder(name) / "solution.py", seed=SEED, limit=LIMIT)
    assert verdict.passed, f"seed {verdict.seed}, {verdict.stage}: {verdict.message}"


@pytest.mark.parametrize(("name", "exercise"), NAMED)
def test_wrong_answers_are_told_why(name: str, exercise: Exercise, plain: Desk, tmp_path: Path) -> None:
    """The stub, zeros, remembered results, and each likely mistake: all fail, the last with the sentence that is meant for it."""
    needs(exercise)
    text = solution(name)
    answers = {
        "the stub": ((exercises.folder(name) / "stub.py").read_text(), "."),
        "zeros": (text + SPOILT.format(asks=tuple(exercise.asks), keep=False), "."),
        "remembered": (text + SPOILT.format(asks=tuple(exercise.asks), keep=True), "."),
        **{m.name: (edited(text, dict(m.edits)), m.says) for m in exercise.mistakes},
    }
    for number, (wrong, (source, says)) in enumerate(answers.items()):
        path = tmp_path / f"answer_{number}.py"
        path.write_text(source)
        verdict = plain.examine(name, path, seed=SEED, limit=LIMIT)
        assert not verdict.passed, f"{wrong} passed, seed {verdict.seed}"
        assert says == "." or len(verdict.message) > 60, f"{wrong}: {verdict.message}"
        assert "_spoilt" not in verdict.message
        assert re.search(says, verdict.message, re.DOTALL), f"{wrong} is told: {verdict.message}"


@pytest.mark.parametrize(("name", "exercise"), NAMED)
def test_exercise_is_whole(name: str, exercise: Exercise) -> None:
    """What it hands out says the task and defines what is asked for; hints lead on; the order is clear."""
    assert len(exercise.mistakes) >= 3
    assert len(exercise.hints) >= 2
    for file in ("stub.py", "solution.py"):
        tree = ast.parse((exercises.folder(name) / file).read_text())
        assert len(ast.get_docstring(tree) or "") > 150, file
        defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        assert set(exercise.asks) <= defined, file
    assert sum(other.rank == exercise.rank for other in EVERY.values()) == 1


# The desk


def answer(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "add_vectors.py"
    path.write_text(body)
    return path


@pytest.mark.parametrize(("body", "says"), [
    ("def add(x, y, out):\n    while True: pass\n", r"stopped after 2 seconds.*loop that does not end"),
    ("import os\ndef add(x, y, out):\n    os._exit(0)\n", r"ended the process, with status 0"),
    ("import os\ndef add(x, y, out):\n    os.abort()\n", r"crashed the process \(SIGABRT\)"),
    ("def add(x, y, out):\n    input()\n", r"line 2 .*EOFError"),
    ("def add(x, y, out):\n    raise SystemExit(3)\n", r"line 2 of add_vectors.py: SystemExit: 3"),
    ("def add(x, y, out):\n    out[len(x)] = 1\n", r"line 2 .*IndexError.*indices"),
    ("def add(x, y, out)\n    pass\n", r"line 1 .*SyntaxError"),
    ("def sum(x, y, out): pass\n", r"defines no function 'add'"),
    ("def add(x, y, out):\n    raise NotImplementedError('add')\n", r"add: not written yet"),
])  # fmt: skip
def test_bad_answers_end_in_a_sentence(body: str, says: str, tmp_path: Path) -> None:
    with Desk() as desk:
        verdict = desk.examine("add-vectors", answer(tmp_path, body), limit=2 if "while" in body else LIMIT)
        assert not verdict.passed
        assert re.search(says, verdict.message, re.DOTALL), verdict.message


def test_desk_goes_on_after_a_crash_and_keeps_what_was_printed(tmp_path: Path) -> None:
    with Desk(environment={"NUMBA_DISABLE_JIT": "1"}) as desk:
        assert not desk.examine("add-vectors", answer(tmp_path, "import os; os._exit(1)")).passed
        verdict = desk.examine("add-vectors", answer(tmp_path, "print('{\"done\": true}')\n" + solution("add-vectors")))
        assert verdict.passed, verdict.message
        assert verdict.output == '{"done": true}'


def test_same_seed_same_values(tmp_path: Path, plain: Desk) -> None:
    path = answer(tmp_path, "def add(x, y, out):\n    out[...] = x - y\n")
    first, second, other = (plain.examine("add-vectors", path, seed=seed).message for seed in (1, 1, 2))
    assert first == second != other


def test_what_does_the_work_is_left_out(tmp_path: Path) -> None:
    from ulpgrad.bench.classroom.worker import refuse

    exercise = Exercise(rank=0, title="", teaches="", asks=(), check=lambda t: None, hints=(), mistakes=(),
                        forbids={"@": "Write the loops.", "/": "Write the loops.", "dot": "Write the loops."})  # fmt: skip
    for source in ("c = a @ b", "c /= 2", "c = np.dot(a, b)", "from numpy import dot"):
        with pytest.raises(Wrong, match=r"line 1: .* Write the loops"):
            refuse(exercise, source)
    refuse(exercise, "c = a * b  # not a @ b")


# What a kernel does to memory

KERNELS = """
from ulpgrad.kernels.numba_jit import jit, prange

@jit()
def columns(x, out):
    for j in range(x.shape[1]):
        for i in range(x.shape[0]):
            out[j] += one(x, i, j)

@jit()
def one(x, i, j):
    return x[i][j]

@jit(parallel=True)
def neighbours(x, out):
    for i in prange(len(x) - 1):
        out[i] = x[i] + x[i + 1]
        x[i] = 0
"""


def test_accesses_are_counted(tmp_path: Path) -> None:
    kernels = imported(answer(tmp_path, KERNELS))
    x = np.arange(32.0).reshape(8, 4)
    run = traced(kernels, "columns", (x, np.zeros(4)))
    assert (run.count(0) == 1).all()
    assert (run.count(1) == 8).all()
    assert (run.count(1, writes=True) == 8).all()
    assert run.races() == []
    np.testing.assert_array_equal(run.arrays[1], x.sum(0))
    assert run.misses(lines=100, line=4) == 8 + 1  # each line of x, and out, once
    assert run.misses(lines=2, line=4) == 32 + 1  # down a column of rows that are gone when the next one begins
    assert not hasattr(kernels.one, "py_func")  # the module is as it was
    assert callable(kernels.columns.compile)


def test_races_are_found(tmp_path: Path) -> None:
    run = traced(imported(answer(tmp_path, KERNELS)), "neighbours", (np.ones(4), np.zeros(4)))
    assert run.races() == [(0, 1, 0, 1), (0, 2, 1, 2)]


# Comparisons


def test_fences_show_who_writes_outside(tmp_path: Path) -> None:
    body = "def before(x):\n    x.base[511] = 0\n\ndef behind(x):\n    x.base[-512] = 0\n\ndef inside(x):\n    x[...] = 0\n"
    kernels = imported(answer(tmp_path, body))
    for name in ("before", "behind", "inside"):
        trial = Trial(kernels, np.random.default_rng(0), lambda text: None)
        x = trial.fenced(np.ones((2, 3), np.float32))
        np.testing.assert_array_equal(x, 1)
        if name == "inside":
            trial.call(name, x, writes=[0])
            continue
        with pytest.raises(Wrong, match=f"wrote to memory {name} an array of 6 elements"):
            trial.call(name, x)


def test_peak_of_memory(tmp_path: Path) -> None:
    trial = Trial(imported(answer(tmp_path, "def f(n):\n    return bytearray(n)\n")), np.random.default_rng(0), print)
    assert 1_000_000 <= trial.peak("f", 1_000_000) < 1_100_000


def test_messages_of_comparisons(tmp_path: Path) -> None:
    trial = Trial(imported(answer(tmp_path, "def f(x):\n    x[0] = 1")), np.random.default_rng(0), lambda text: None)
    want = np.array([1.0, 2.0], np.float32)
    trial.near(want, want, ulps=0)
    trial.same(np.array([1, 2]), np.array([1, 2]))
    for call, says in (
        (lambda: trial.near(None, want, ulps=0), "ends? without `return`"),
        (lambda: trial.near(want[:1], want, ulps=0), r"shape \(1,\): expected \(2,\)"),
        (lambda: trial.near([1.0, 2.0], want, ulps=0), r"is list: expected a NumPy array"),
        (lambda: trial.near(want * 2, want, ulps=0, suspects={"Twice.": want * 2}), r"\[0\] is 2; right is 1.*Twice\."),
        (lambda: trial.near(np.nextafter(want, 3), want, ulps=0.5), "1 units in the last place of float32"),
        (lambda: trial.near(trial.blank(2), want, ulps=1), "nothing was written"),
        (lambda: trial.same(trial.blank(2, np.int32), np.array([1, 2], np.int32)), "nothing was written"),
        (
            lambda: trial.same(np.array([1, 3, 5]), np.array([1, 2, 3])),
            r"\[1\] is 3; right is 2 \(and 1 more of 3 differ\)",
        ),
        (lambda: trial.call("f", np.zeros(3)), "changed its operand number 1"),
    ):
        with pytest.raises(Wrong, match=says):
            call()


def test_ratio_inside_the_noise_is_none() -> None:
    assert Ratio("the other", 1.2, 1.1, 1.3).verdict == "faster"
    assert Ratio("the other", 0.8, 0.7, 0.9).verdict == "slower"
    assert Ratio("the other", 1.2, 0.9, 1.3).verdict == "no difference beyond the noise"


# The commands


def test_list_names_all(tmp_path: Path) -> None:
    done = call("exercise", "list", "--json", tmp_path / "list.json")
    assert done.exit_code == 0, done.output
    assert [row["name"] for row in json.loads((tmp_path / "list.json").read_text())] == list(EVERY)
    assert all(name in done.output for name in EVERY)


def test_from_start_to_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "ulpgrad exercise start NAME" in call("exercise", "check").output
    done = call("exercise", "start", "choose-q")
    assert done.exit_code == 0, done.output
    assert "choose(values, bits)" in done.output
    path = Path("exercises/choose_q.py")
    again = call("exercise", "start", "choose_q")
    assert again.exit_code == 1
    assert "is there already, and is kept" in again.output
    wrong = call("exercise", "check", "choose-q", "--seed", "5", "--json", "verdict.json")
    assert wrong.exit_code == 1
    assert "--seed 5" in wrong.output
    assert json.loads(Path("verdict.json").read_text())[0]["passed"] is False
    path.write_text(solution("choose-q"))
    assert call("exercise", "start", "choose-q", "--to", "elsewhere").exit_code == 0
    right = call("exercise", "check")
    assert right.exit_code == 0, right.output
    assert "choose-q: right" in right.output
    moved = Path("mine.py")
    moved.write_text(solution("choose-q"))
    assert call("exercise", "check", moved, "--as", "choose-q").exit_code == 0
    assert "no exercise 'mine'" in call("exercise", "check", moved).output


def states(folder: str) -> dict[str, str]:
    assert call("exercise", "list", folder, "--json", "list.json").exit_code == 0
    return {row["name"]: row["state"] for row in json.loads(Path("list.json").read_text()) if row["state"]}


def test_what_passed_is_kept_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert states("mine") == {}
    assert call("exercise", "start", "choose-q", "--to", "mine").exit_code == 0
    assert states("mine") == {"choose-q": "begun"}
    path = Path("mine/choose_q.py")
    path.write_text(solution("choose-q"))
    assert call("exercise", "check", "mine", "--seed", "5").exit_code == 0
    assert states("mine") == {"choose-q": "passed"}
    assert "1 of " in call("exercise", "list", "mine").output
    path.write_text(solution("choose-q") + "# another thought\n")
    assert states("mine") == {"choose-q": "changed"}
    assert "changed since it passed" in call("exercise", "list", "mine").output
    path.write_text("def choose(values, bits):\n    return None\n")
    assert call("exercise", "check", path).exit_code == 1
    assert states("mine") == {"choose-q": "changed"}
    passed.keep(path, "choose-q", 5, right=True)
    assert call("exercise", "check", path).exit_code == 1  # the same file, on other values
    assert states("mine") == {"choose-q": "begun"}


def test_a_record_that_cannot_be_read_or_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Path("exercises", passed.FILE)
    call("exercise", "start", "choose-q")
    Path("exercises/choose_q.py").write_text(solution("choose-q"))
    kept.write_text("[]")
    assert "delete it, and check again" in call("exercise", "list").output
    kept.write_text('{"version": 99, "passed": {}}')
    assert "version 99; this ulpgrad reads up to 1" in call("exercise", "list").output
    done = call("exercise", "check", "choose-q")
    assert done.exit_code == 0
    assert "Not kept for `ulpgrad exercise list`" in done.output
    assert "99" in kept.read_text()


def test_hints_come_in_steps() -> None:
    name, exercise = next(iter(EVERY.items()))
    first, both = call("exercise", "hint", name), call("exercise", "hint", name, "2")
    assert "Hint 1 of" in first.output
    assert "Hint 2 of" not in first.output
    assert "Hint 2 of" in both.output
    assert call("exercise", "hint", name, str(len(exercise.hints) + 1)).exit_code == 1
    assert call("exercise", "solution", name).output.strip() == solution(name).strip()


def test_unknown_names_and_places(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="did you mean add-vectors"):
        exercises.load("ad-vector")
    with pytest.raises(ArgumentError, match="exercise list"):
        exercises.load("zzz")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="choose another with --to"):
        exercises.start("choose-q", tmp_path / "file" / "folder")
    done = call("exercise", "check", tmp_path / "choose_q.py")
    assert done.exit_code == 1
    assert "exercise start choose-q" in done.output


@pytest.mark.skipif(capabilities.missing("numba") is not None, reason="needs Numba")
def test_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ulpgrad.cli", "exercise", "check", exercises.folder("add-vectors") / "solution.py",
         "--as", "add-vectors"], capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "add-vectors: right" in done.stdout
