"""The laboratory on studies of a few numbers: what is summed up, kept, refused and drawn; then every study, quickly."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="the digits come with scikit-learn, of the extra `lab`")
pytest.importorskip("typer", reason="the command line needs the extra `lab`")
pytest.importorskip("matplotlib", reason="the plots need the extra `lab`")
from typer.testing import CliRunner

from ulpgrad import data
from ulpgrad.bench import studies
from ulpgrad.bench.lab import (
    Check,
    Figures,
    NotRun,
    Plot,
    Recipe,
    Results,
    Row,
    Run,
    Study,
    bars,
    curves,
    diverged,
    network,
    number,
    page,
    percent,
    plots,
    runs,
    train,
)
from ulpgrad.bench.lab.results import plain
from ulpgrad.bench.lab.training import error_rate
from ulpgrad.cli.app import app
from ulpgrad.errors import ArgumentError
from ulpgrad.kernels.threads import get_num_threads, set_num_threads
from ulpgrad.policy import DelayedScaling, Policy

VOID = {"meta", "link", "img", "br", "hr", "input"}
REACHING_OUT = {"src", "href", "xlink:href", "data", "action", "srcset", "poster"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects text, tags, and whatever reaches out of the file."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.outside: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.outside += [f"{name}={value}" for name, value in attrs if name in REACHING_OUT]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


CALLS: list[tuple[str, int]] = []
ELSEWHERE = {"mx"}  # its shortest run reads a whole text: test_studies_more.py has it


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As studies run: threads cost more than they bring in networks so small."""
    before = get_num_threads()
    set_num_threads(1)
    yield
    set_num_threads(before)


def quiet(text: str, *, done: bool = False) -> None:
    """Nobody listens."""


def run(run: Run) -> Figures:
    """Errors that are known beforehand."""
    CALLS.append((run.row, run.seed))
    run.told("epoch 1")
    if run.row == "stopped" and run.seed == 1 and run.epochs > 1:
        raise KeyboardInterrupt
    error = np.float32(run.setting + 0.25 * run.seed)
    fault = {"step": 7 - run.seed, "epoch": 1, "where": "loss"} if run.row == "worse" else None
    return {"test_error": error, "test_errors": np.array([1, error]), "loss": math.nan, "first_not_finite": fault}


TINY = Study(
    title="Tiny <study>",
    source="Nobody, 'Nothing', 1900",
    claim="Less is more & more is less.",
    rows={
        "better": Row("better", 0.25, "A quarter.", tags={"format": "q1.2"}),
        "worse": Row("worse", 0.5, "A half.", tags={"format": "q1.1"}),
        "stopped": Row("stopped", 0.75, epochs=5),
    },
    run=run,
    columns=[percent("test error", "test_error"), number("loss", "loss"), diverged()],
    plots=[
        Plot("Errors", curves("test_errors", "test error")),
        Plot("Bars", bars("test error", expected={"better": {"test_error": 0.2}})),
    ],
    see=[lambda r: f"Worse is {r.mean('worse') / r.mean('better'):.1f} times better."],
    checks=[
        Check("better is better", lambda r: r.mean("better") < r.mean("worse")),
        Check("worse is best", lambda r: r.mean("worse") < r.mean("better")),
    ],
    expected={"better": {"test_error": 0.2}},
    quick=["better"],
    epochs=4,
)


def finished(folder: Path, **given: object) -> Results:
    return runs.finish("tiny", TINY, TINY.options(given), folder, quiet)


def test_means_and_intervals(tmp_path: Path) -> None:
    """Student's t with two degrees of freedom: 4.303 s / sqrt(3), s = 1/4."""
    found = finished(tmp_path, rows="better").estimate("better")
    assert found.values == (0.25, 0.5, 0.75)
    assert found.mean == 0.5
    assert found.half == pytest.approx(4.303 * 0.25 / math.sqrt(3))
    lost = finished(tmp_path, rows="better").estimate("better", "loss")
    assert (lost.values, lost.lost, lost.half) == ((), 3, None)


def test_a_second_call_runs_nothing_again_and_a_stopped_one_goes_on(tmp_path: Path) -> None:
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path, rows="better,stopped", seeds=2)
    assert CALLS == [("better", 0), ("better", 1), ("stopped", 0), ("stopped", 1)]
    CALLS.clear()
    with pytest.raises(KeyboardInterrupt):
        finished(tmp_path, rows="better,stopped", seeds=2)
    assert CALLS == [("stopped", 1)]
    CALLS.clear()
    finished(tmp_path, rows="better", seeds=2, epochs=9)  # other arguments, another run
    assert CALLS == [("better", 0), ("better", 1)]
    runs.finish("tiny", TINY, TINY.options({"rows": "better", "seeds": 1}), tmp_path, quiet, fresh=True)
    assert len(CALLS) == 3


def test_options_are_checked() -> None:
    assert TINY.options({}, quick=True).rows == ("better",)
    assert TINY.options({"formats": "q1.1"}).rows == ("worse",)
    assert [r.epochs for r in TINY.runs(TINY.options({"seeds": 1}))] == [4, 4, 5]
    assert [r.epochs for r in TINY.runs(TINY.options({"seeds": 1, "data": "mnist"}))] == [1, 1, 1]
    with pytest.raises(ArgumentError, match="--rows: 'best' given, expected some of better, worse, stopped"):
        TINY.options({"rows": "best"})
    with pytest.raises(ArgumentError, match="--models: 'cnn' given, expected some of none"):
        TINY.options({"models": "cnn"})
    with pytest.raises(ArgumentError, match="'cifar' given, this study takes digits, mnist"):
        TINY.options({"data": "cifar"})


def test_page_says_what_holds_and_needs_nothing_else(tmp_path: Path) -> None:
    text = page.page("tiny", TINY, finished(tmp_path, rows="better,worse"), "ulpgrad study tiny")
    words = " ".join(check_page(text).words)
    for part in ("Tiny <study>", "Less is more & more is less.", "Worse is 1.5 times better.", "holds", "does not hold",
                 "50.00% ± 62.11", "not finite", "step 5, loss", "+30.00 points", "A quarter.", "Nobody"):  # fmt: skip
        assert part in words, part
    assert text.count("<figure") == 2


def check_page(text: str) -> Page:
    """A page whose tags close, which reaches for nothing outside, whose ids are unique and colours its own."""
    found = Page(text)
    assert [link for link in found.outside if not link.startswith("href=#")] == []
    assert not {"script", "link", "iframe", "object", "img", "metadata"} & set(found.tags)
    assert "http" not in text
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', text)) <= set(ids)
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert not re.findall(r"#[0-9a-f]{6}", drawn), "a colour that does not follow the page"
    return found


def test_rows_that_were_not_run_leave_gaps(tmp_path: Path) -> None:
    results = finished(tmp_path, rows="worse")
    with pytest.raises(NotRun):
        results.of("better")
    assert TINY.verdicts(results) == [("better is better", None), ("worse is best", None)]
    assert TINY.paragraphs(results) == [TINY.claim]
    assert "Beside the dry run" not in page.page("tiny", TINY, results, "")
    only = Plot("One", lambda axes, r: axes.plot(r.curve("better", "test_errors")))
    assert only.html(results, "one") == ""


def test_a_short_run_is_not_judged(tmp_path: Path) -> None:
    short = finished(tmp_path, epochs=1)
    assert [holds for _, holds in TINY.verdicts(short)] == [None, None]
    assert len(TINY.tables(short)) == 1
    assert TINY.paragraphs(short)[1].startswith("This is a short or altered run")
    assert "does not hold" not in page.page("tiny", TINY, short, "")


def test_data_are_json(tmp_path: Path) -> None:
    data = page.as_data("tiny", TINY, TINY.options({"rows": "better"}), finished(tmp_path, rows="better"))
    text = json.dumps(data, allow_nan=False)
    assert json.loads(text)["summary"][0]["test_error"]["mean"] == 0.5
    assert data["summary"][0]["loss"] == {"mean": None, "half_95": None, "values": [], "not_finite": 3}


def test_what_is_not_finite_becomes_none() -> None:
    assert plain({"a": (np.float64("inf"), np.int8(3)), "b": np.array([[1.0, np.nan]])}) == {
        "a": [None, 3],
        "b": [[1.0, None]],
    }


def test_the_same_drawing_gives_the_same_bytes() -> None:
    first, again = (
        plots.svg(lambda axes: axes.plot([1, 2], [3, 4], color=plots.colour(1)), "p", "P") for _ in range(2)
    )
    assert first == again
    assert "var(--s1)" in first


# Training


def one(row: str = "x", **changed: object) -> Run:
    values = {"setting": None, "seed": 0, "epochs": 1, "batch_size": 32, "data": "digits", **changed}
    return Run(row=row, **values)  # type: ignore[arg-type]


def test_same_seed_same_bits() -> None:
    first, again = (train(one(epochs=2)) for _ in range(2))
    assert first["step_losses"] == again["step_losses"]
    assert len(first["step_losses"]) == 2 * math.ceil(1297 / 32) == first["steps"]
    assert first["losses"][1] == pytest.approx(np.mean(first["step_losses"][41:]))
    assert train(one(seed=1))["step_losses"] != first["step_losses"][:41]


def test_a_training_that_diverges_says_where_first() -> None:
    found = train(one(epochs=3), Recipe(learning_rate=1e30))
    fault = found["first_not_finite"]
    assert fault["epoch"] == 1
    assert fault["where"] in ("loss", "gradient of 5.weight", "5.weight") or "gradient" in fault["where"]
    assert found["steps"] <= fault["step"] + 1
    assert len(found["losses"]) == len(found["test_errors"]) == 3
    assert found["test_error"] > 0.8
    json.dumps(plain(found), allow_nan=False)


def test_a_policy_that_gives_up_says_where() -> None:
    """NaN into fixed point: the loss grows beyond all numbers, and the policy refuses to go on."""
    found = train(one(epochs=2), Recipe(learning_rate=1e30), policy=Policy(activation="float16", overflow="ieee"))
    assert found["first_not_finite"]["epoch"] == 1
    assert found["first_not_finite"]["where"]
    assert len(found["losses"]) == len(found["test_errors"]) == 2
    assert found["test_error"] > 0.8


def test_measuring_the_error_leaves_the_policy_as_it_was() -> None:
    policy = DelayedScaling()
    train(one(), policy=policy)
    before = policy.state_dict()
    error_rate(network("digits"), data.digits("test"), policy)
    assert policy.state_dict() == before


# The studies themselves


def test_list_shows_every_study(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["study", "--list", "--json", str(tmp_path / "list.json")])
    assert done.exit_code == 0, done.output
    listed = json.loads((tmp_path / "list.json").read_text())
    assert [s["name"] for s in listed] == studies.names()
    assert all(name in done.output for name in studies.names())


def test_an_unknown_study_lists_what_there_is() -> None:
    with pytest.raises(ArgumentError, match="there is no study 'digit'; did you mean digits"):
        studies.load("digit")
    with pytest.raises(ArgumentError, match=r"there is no study '12345'; there are .*digits"):
        studies.load("12345")


@pytest.mark.parametrize("name", [name for name in studies.names() if name not in ELSEWHERE])
def test_every_study_runs_quickly_and_its_page_needs_nothing_else(name: str, tmp_path: Path) -> None:
    """A few steps, or nothing trained, of the first rows of a --quick call: rows, columns, plots and JSON fit together."""
    study = studies.load(name)
    rows = list(study.quick or study.rows)[:2]
    arguments = ["study", name, "--quick", "--rows", ",".join(rows), "--batch-size", "500", "--out", str(tmp_path)]
    done = CliRunner().invoke(app, [*arguments, *(["--epochs", "1"] if study.epochs else [])])
    assert done.exit_code == 0, done.output
    words = " ".join(check_page((tmp_path / f"{name}.html").read_text()).words)
    for part in ("What to see", "Command", "Versions", study.title):
        assert part in words
    data = json.loads((tmp_path / f"{name}.json").read_text())
    assert [row["row"] for row in data["summary"]] == rows
    for row, figures in study.expected.items():
        assert row in study.rows, "an expectation of a row there is not"
        assert figures


def test_studies_take_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of MNIST's format, with the digits in them three times as large."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    large = np.zeros((400, 28, 28), np.uint8)
    large[:, 2:26, 2:26] = np.kron(images[:400].reshape(-1, 8, 8) * 15.9, np.ones((3, 3))).astype(np.uint8)
    folder = tmp_path / "cache" / "mnist"
    folder.mkdir(parents=True)
    for name, part in (("train", slice(0, 300)), ("t10k", slice(300, 400))):
        values, answers = large[part], labels[:400][part].astype(np.uint8)
        head = struct.pack(">4B3I", 0, 0, 8, 3, *values.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + values.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">4BI", 0, 0, 8, 1, len(answers)) + answers.tobytes()
        )
    monkeypatch.setenv("ULPGRAD_CACHE", str(tmp_path / "cache"))
    arguments = [
        "study",
        "gupta",
        "--data",
        "mnist",
        "--quick",
        "--epochs",
        "1",
        "--rows",
        "q7.8-stochastic",
        "--out",
        str(tmp_path),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "mnist" in (tmp_path / "gupta.json").read_text()
