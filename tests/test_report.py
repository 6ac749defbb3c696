"""Reports of benchmark runs: one page that needs nothing else, in a real browser too; the same as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
pytest.importorskip("matplotlib", reason="the pictures need the extra `lab`")
from typer.testing import CliRunner

from ulpgrad.bench.peers import recorded
from ulpgrad.bench.suite import browser, charts, page, record, view
from ulpgrad.bench.suite.record import Error, Limit, Range, Record, Row, Time
from ulpgrad.bench.suite.tables import Table
from ulpgrad.cli.app import app
from ulpgrad.errors import DataError

VOID = {"meta", "br", "hr", "input", "img", "link"}
FORMATS = {"float32": (32, 2e11, 2e-7, 0.0), "bfloat16": (16, 4e11, 3e-3, 0.0), "float8_e4m3fn": (8, 2e11, 4e-2, 0.25)}
CHROMIUM = browser.found()
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no browser: apt-get install chromium")


def rows() -> Iterator[Row]:
    """Two ops, one of them at four sizes, in three formats, beside two peers: torch takes 1.52 times as long, NumPy 1.02."""
    for op, counts in (("matmul", "n of n x n times n x n"), ("tanh <&>", "values")):
        for form, (bits, most, error, lost) in FORMATS.items():
            for size in (64, 128, 256, 512) if op == "matmul" and form != "bfloat16" else (512,):
                flops, moved = 2.0 * size**3, 3.0 * size**2 * bits / 8
                base = max(flops / most, moved / 5e10)
                for contender, slower in (("ulpgrad", 1.25), ("torch", 1.9), ("NumPy", 1.27)):
                    if contender == "NumPy" and form != "float32":
                        yield Row(op, form, size, "cpu", contender, None, 2, "missing", f"NumPy has no {form}")
                        continue
                    time = Time.of([base * slower * (1 + 0.02 * k) for k in range(-3, 4)])
                    bins = ((0.0, 0.0, 10), (0.0, 0.5, 900), (0.5, 1.0, 40), (1.0, 1e300, 0))
                    yield Row(
                        op, form, size, "cpu", contender, "cpu/native-fused" if contender == "ulpgrad" else None, 2,
                        "measured", "", contender == "ulpgrad", f"{op}({form}[{size}])", counts, time, 5 * time.median, flops,
                        moved, Limit(most, 5e10), "arithmetic" if flops / most > moved / 5e10 else "memory",
                        base / time.median, 4 * size * size, bits, moved, Error(error, 2 * error, 0.75, bins),
                        Range(0.0, lost), None,
                    )  # fmt: skip


@pytest.fixture(scope="module")
def run() -> Record:
    """A run in which one row claims too much, one failed, and one was too large."""
    made = list(rows())
    made.append(
        replace(made[0], op="fast", share=1.7, state="failed", reason="1.70 of the limit", error=None, range=None)
    )
    made.append(Row("fused", "float32", None, "cpu", "ulpgrad", "cpu/numba", 2, "failed", "the worker died | signal 9"))
    made.append(Row("matmul", "float32", 1 << 20, "cpu", "ulpgrad", None, 2, "too large", "12 TB of 24 GB"))
    return Record("ulpgrad bench matmul tanh --json x.json", "0123456789",
                  {"cpu": "A <CPU>", "cores": 2, "memory_bytes": 1 << 34}, {"ulpgrad": "0.1", "torch": None, "numpy": "2"}, 2,
                  "2026-01-02T03:04:05+00:00", "2026-01-02T03:14:05+00:00", "the machine is busy (load 9)", {},
                  tuple(made))  # fmt: skip


@pytest.fixture(scope="module")
def html(run: Record) -> str:
    return page.html(run)


class Words(HTMLParser):
    """Words of a page, its tags, and what it asks for from outside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.outside: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [
            f"{k}={v}" for k, v in attrs if k in ("src", "href", "srcset", "action") and not (v or "").startswith("#")
        ]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del tag, attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)


def test_page_needs_nothing_else(html: str) -> None:
    found = Words(html)
    assert found.outside == []
    assert "http" not in html
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    ids = re.findall(r'\bid="([^"]*)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', html)) <= set(ids)
    drawn = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert not re.findall(r"#[0-9a-f]{6}", drawn), "a colour that does not follow the page"


def test_page_says_what_there_is_to_see(html: str) -> None:
    words = " ".join(" ".join(Words(html).words).split())
    for part in (
        "Above the roofline: 1.", "1.70 of the limit", "1.52x", "1.02x (within noise)", "no difference in 5",
        "faster in 12, slower in 0",
        "Beside torch: 1.52x its speed (geometric mean over 12 cells)", "the worker died | signal 9", "12 TB of 24 GB",
        "NumPy has no bfloat16", "tanh <&>", "25%",
        "A <CPU>, 2 cores, 16 GiB", "the machine is busy (load 9)", "2026-01-02 03:04 UTC to 2026-01-02 03:14 UTC",
        "bench matmul --formats float32 --sizes 64,128,256,512 --peers torch,NumPy --threads 2",
    ):  # fmt: skip
        assert part in words, part
    for heading in (
        "Speed",
        "Roofline",
        "Sizes",
        "Formats",
        "Errors in units in the last place",
        "Range",
        "What is missing",
    ):
        assert f">{heading}</h2>" in html
    assert html.count("<figure") == 1 + 2 + 2 + 2 + 1, "roofline, sizes, fronts, errors, ranges"
    assert html.count("Numbers and command") == html.count("<figure")


def test_a_small_run_leaves_out_what_it_has_not(run: Record) -> None:
    one = replace(
        run,
        rows=(replace(run.rows[1], error=None, range=None, limit=None, flops=None, contender="ulpgrad", size=None),),
    )
    text = page.html(one)
    assert "Roofline" not in text
    assert "<figure" not in text
    assert "Speed" in text
    assert page.html(replace(run, rows=(), ended=None)).count("has not come to its end") == 1


def test_markdown_has_the_same_tables(run: Record) -> None:
    text = page.markdown(run)
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 1 + 8 + 1 + 1 + 2 + 0
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1, table
    assert "the worker died \\| signal 9" in text
    assert "# ulpgrad, measured" in text
    assert "- Command: ulpgrad bench matmul tanh --json x.json" in text


def test_csv_has_every_row_and_every_figure(run: Record) -> None:
    lines = list(csv.DictReader(io.StringIO(page.csv(run))))
    assert len(lines) == len(run.rows)
    for line, row in zip(lines, run.rows, strict=True):
        assert line["op"] == row.op
        assert line["state"] == row.state
        assert line["reason"] == row.reason
        assert (line["seconds"] == "") == (row.time is None)
        if row.time and row.error:
            assert float(line["seconds"]) == row.time.median
            assert float(line["relative_error"]) == row.error.relative
            assert int(line["samples"]) == 7


def test_numbers_go_in_full_into_csv_and_short_into_the_page() -> None:
    from ulpgrad.bench.report import Entry

    table = Table("T", ("a", "b"), [("x", Entry("1.23 ms", 0.00123456789))], ("b",))
    assert table.csv() == "a,b\nx,0.00123456789\n"
    assert "| x | 1.23 ms |" in table.markdown()
    assert 'data-value="0.00123457">1.23 ms<' in table.html()


def test_view(run: Record) -> None:
    cells = view.cells(run.rows)
    first = cells[0]
    assert first.name == "matmul float32, 64"
    assert first.ours is run.rows[0]
    assert first.best is run.rows[2]
    assert first.ratio == pytest.approx(1.27 / 1.25)
    assert not first.is_beyond_noise
    assert [row.op for row in run.rows if view.is_suspect(row)] == ["fast"]
    assert view.peers(cells) == ["torch", "NumPy"]
    assert view.mean_ratio(cells, "nobody") is None


def test_several_runs_make_one_page(run: Record) -> None:
    later = replace(run, rows=(replace(run.rows[0], op="later"), replace(run.rows[0], share=0.5)), command="second", busy=None,
                    started="2026-01-02T04:00:00+00:00", ended="2026-01-02T05:00:00+00:00")  # fmt: skip
    both = view.together([run, later])
    assert len(both.rows) == len(run.rows) + 1
    assert both.rows[0].share == 0.5
    assert both.command == f"{run.command} && second"
    assert (both.started, both.ended, both.busy) == (run.started, later.ended, run.busy)
    assert view.together([run, replace(later, ended=None)]).ended is None
    with pytest.raises(DataError, match="must share threads: 2 and 4"):
        view.together([run, replace(later, threads=4)])


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0%"), (2e-5, "<0.01%"), (0.0123, "1.2%"), (0.5, "50%"), (1.0, "100%")]
)
def test_percent(value: float, text: str) -> None:
    assert charts.percent(value) == text


def test_names_of_sizes() -> None:
    assert [charts.count(x) for x in (8, 1000, 1024, 65536, 1 << 22, 3e6 + 1)] == [
        "8",
        "1000",
        "1024",
        "64K",
        "4M",
        "3e+06",
    ]
    assert charts.apart([1, 1.01, 1000]) == [1, 1000]
    assert charts.brief(5e-5) == "50 us"
    assert charts.brief(2e-9) == "2 ns"


def test_command_writes_all_three(run: Record, tmp_path: Path) -> None:
    run = replace(run, rows=run.rows[-12:])
    source = tmp_path / "run.json"
    record.write(source, run)
    files = {kind: tmp_path / f"out.{kind}" for kind in ("html", "markdown", "csv")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    done = CliRunner().invoke(app, ["bench", "report", str(source), *options])
    assert done.exit_code == 0, done.output
    assert "1.02x (within noise)" in done.output
    assert files["html"].read_text() == page.html(run)
    assert files["markdown"].read_text() == page.markdown(run)
    assert files["csv"].read_text() == page.csv(run)


def test_bad_files_are_refused_in_a_line(run: Record, tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["bench", "report", *arguments])
        assert done.exit_code == 1, done.output
        return done.output

    good = tmp_path / "run.json"
    record.write(good, replace(run, rows=run.rows[:1]))
    newer = tmp_path / "newer.json"
    newer.write_text(json.dumps({**run.as_data(), "version": record.VERSION + 1}))
    assert "update" in told(str(newer))
    assert "nobody: no such file; recorded are" in told("nobody")
    assert "cannot be read" in told(str(tmp_path / "none.json"))
    (tmp_path / "file").write_text("")
    assert "cannot write into" in told(str(good), "--html", str(tmp_path / "file" / "x.html"))


def test_tables_of_documents(run: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    record.write(tmp_path / "suite-x.json", run)
    made = recorded.filled("<!-- recorded: suite x matmul 64|TANH bfloat16 -->\n<!-- end -->")
    assert made.count("| matmul |") == 2
    assert made.count("| tanh <&> |") == 1
    assert "1.02x (within noise)" in made
    made = recorded.filled("<!-- recorded: formats x matmul -->\n<!-- end -->")
    assert made.count("| ulpgrad |") == 3
    with pytest.raises(DataError, match="no cell with the words 'sin'"):
        recorded.filled("<!-- recorded: suite x sin -->\n<!-- end -->")
    with pytest.raises(DataError, match="no op 'sin' in several formats"):
        recorded.filled("<!-- recorded: formats x sin -->\n<!-- end -->")


# In a browser


@in_browser
def test_page_fits_phone_tablet_and_desktop(html: str) -> None:
    """Nothing is wider than the window, but for tables and broad pictures, which scroll by themselves."""
    assert CHROMIUM is not None
    for width, seen in zip(browser.WIDTHS, CHROMIUM.asked(html, browser.WIDTHS), strict=True):
        assert seen["width"] == width
        assert seen["needed"] <= width
        assert seen["over"] == []
        assert len(seen["pictures"]) == html.count("<figure")
        assert min(seen["pictures"]) > 100


@in_browser
def test_a_click_sorts_and_a_word_filters(html: str) -> None:
    question = """() => {
      const table = document.querySelector("table.sorts"), cells = () => [...table.tBodies[0].rows].map((r) => r.cells[3]);
      const button = table.tHead.rows[0].cells[3].querySelector("button");
      const seen = () => cells().map((c) => Number(c.dataset.value));
      button.click(); const down = seen();
      button.click(); const up = seen();
      const field = table.parentElement.previousElementSibling;
      field.value = "tanh BFLOAT16"; field.oninput();
      return { down, up, sorted: table.tHead.rows[0].cells[3].ariaSort,
               left: [...table.tBodies[0].rows].filter((r) => !r.hidden).length };
    }"""
    assert CHROMIUM is not None
    (seen,) = CHROMIUM.asked(html, [820], question)
    assert len(seen["down"]) == 12
    assert seen["down"] == sorted(seen["down"], reverse=True) != sorted(seen["down"])
    assert seen["up"] == sorted(seen["up"])
    assert seen["sorted"] == "ascending"
    assert seen["left"] == 1


@in_browser
def test_pictures_and_print_are_made(html: str, tmp_path: Path) -> None:
    source = tmp_path / "page.html"
    source.write_text(html)
    assert CHROMIUM is not None
    picture = CHROMIUM.picture(source, tmp_path / "page.png", 390, 2000)
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert int.from_bytes(picture.read_bytes()[16:20]) == 390
    printed = CHROMIUM.printed(source, tmp_path / "page.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") > 3
