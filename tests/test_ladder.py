"""What `ulpgrad ladder` shows of rungs: their source, what changed, their inner loops, the picture and the page."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner, Result

from ulpgrad.bench import ladder, shapes
from ulpgrad.bench.peers import recorded
from ulpgrad.bench.rungs import mix, page, source
from ulpgrad.bench.timing import Timing
from ulpgrad.cli.app import app
from ulpgrad.errors import DataError, KernelError
from ulpgrad.kernels import native, registry
from ulpgrad.kernels.registry import Rung

ROOT = Path(__file__).resolve().parent.parent
TAUGHT = ("matmul", "softmax", "attention", "conv2d", "integer_matmul", "sum")  # a chapter of docs/ladders for each
in_cpp = pytest.mark.skipif(native.missing() is not None, reason="the rungs are C++")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def flight(op: str, number: int = 1) -> list[Rung]:
    return [r for r in registry.ladder(registry.find(op)) if ladder.flight_of(r) == number]


# Source


@pytest.mark.parametrize("op", TAUGHT)
def test_rungs_that_teach_show_their_cpp_and_what_changed(op: str) -> None:
    rungs = [r for r in flight(op) if source.ladder_file(r)]
    assert len(rungs) >= 4
    for rung in rungs:
        main = source.sources(rung)[0]
        assert main.path.startswith("csrc/cpu/ladder/")
        assert "#include" in main.text
        assert "#include" not in main.body
        assert "namespace" not in main.body
    for lower, upper in pairwise(rungs):
        changed = source.diff(upper, lower)
        assert f"+++ {source.sources(upper)[0].path}" in changed
        assert source.diff(upper, upper) == ""


def test_a_rung_without_a_file_of_its_own_says_where_its_cpp_is() -> None:
    for op in TAUGHT:
        top = registry.ladder(registry.find(op))[-1]
        where = source.elsewhere(top)
        assert any("/isa/" in path for path in where), op
        root = source.native_root()
        assert root is not None
        assert all((root / path.removeprefix("csrc/cpu/")).exists() for path in where)
        assert source.sources(top)[0].language == "python"


def test_every_rung_has_a_source_and_an_idea() -> None:
    for op in registry.ops().values():
        for rung in registry.ladder(op):
            assert all(file.text.strip() for file in source.sources(rung)), rung.name
            idea, limit = ladder.explained(rung)
            assert idea, rung.name
            assert ladder.LIMIT not in idea + limit


def test_rungs_are_named_in_full_or_by_their_idea() -> None:
    rungs = registry.ladder(registry.find("matmul"))
    for words in ("tile", "native-tile", "cpu/native-tile"):
        assert source.named(rungs, words).name == "cpu/native-tile"
    with pytest.raises(KernelError, match=r"matmul has no rung 'tyle'; did you mean .*native-tile"):
        source.named(rungs, "tyle")


def test_source_on_the_command_line() -> None:
    shown = call("ladder", "matmul", "--source", "tile")
    assert shown.exit_code == 0, shown.output
    assert "void multiply_tile(const Product& x)" in shown.output
    assert "csrc/cpu/ladder/matmul_tile.h" in shown.output
    definition = call("ladder", "softmax", "--source", "reference").output
    assert "def " in definition
    assert "import" not in definition  # the function alone
    best = call("ladder", "sum", "--source")
    assert "kernels/reduction/" in best.output or "csrc/cpu" in best.output
    assert call("ladder", "sum", "--source", "all").output.count("cpu/native-chains: ") == 1


def test_diff_on_the_command_line() -> None:
    shown = call("ladder", "sum", "--diff", "lanes")
    assert shown.exit_code == 0, shown.output
    assert "what changed from cpu/native-chains" in shown.output
    assert re.search(r"^-.*double s0", shown.output, re.MULTILINE)
    assert re.search(r"^\+.*Vec<float> sums", shown.output, re.MULTILINE)
    assert call("ladder", "sum", "--diff", "all").output.count("what changed from") >= 3
    lowest = call("ladder", "sum", "--diff", "loops")
    assert lowest.exit_code == 1
    assert "none is below it" in lowest.stderr
    top = call("ladder", "softmax", "--diff", "fused")
    assert top.exit_code == 1
    assert "not in one file: --source" in top.stderr


@pytest.mark.parametrize(("arguments", "expected"), [
    (["sum", "--source", "lane"], "did you mean"),
    (["sum", "--device", "cuda:1"], "device 'cuda:1' cannot be used"),
    (["sum", "--device", "cdua"], "unknown device 'cdua': expected 'cpu', 'cuda'"),
    (["sum", "--format", "floot32"], "there is no format 'floot32'; did you mean float32"),
    (["matmul", "--size", "100000000"], "matmul --size 100000000: about 1,309,672 TiB are needed"),
    (["matmul", "--shape", "900000,900000", "--shape", "900000,900000"], "--shape: operands take 11.8 TiB in float64"),
    (["sum", "--html", "/nowhere/a.html"], "cannot write into /nowhere"),
    (["sum", "--plot", "/nowhere/a.svg"], "cannot write into /nowhere"),
    (["sum", "--plot", "climb.png"], "the picture is an SVG: --plot climb.svg"),
])  # fmt: skip
def test_mistakes_are_one_helpful_line(arguments: list[str], expected: str) -> None:
    done = call("ladder", *arguments)
    assert done.exit_code == 1, done.output
    assert expected in done.stderr
    assert done.stderr.count("\n") == 1


# Inner loops


def test_the_busiest_loop_is_the_innermost_that_computes_most() -> None:
    text = """
  10:	mov    rax,rdi
  20:	vmovups zmm1,ZMMWORD PTR [rax]
  26:	vfmadd231ps zmm2,zmm1,DWORD PTR [rdi]{1to16}
  30:	vfmadd231ps zmm3,zmm1,ZMMWORD PTR [rdi+0x40]
  36:	jne    20 <_Zf+0x10>
  3a:	vaddss xmm1,xmm1,DWORD PTR [rdi]
  3c:	vmovss DWORD PTR [rdi],xmm1
  40:	jne    10 <_Zf>
"""
    found = re.findall(r"^\s*([0-9a-f]+):\t(\w+)\s*(.*)$", text, re.MULTILINE)
    lines = [mix.Line(int(address, 16), operation, operands) for address, operation, operands in found]
    (inner,) = mix._innermost(lines)
    assert [line.address for line in inner] == [0x20, 0x26, 0x30, 0x36]
    counted = mix._counted(inner)
    assert counted == mix.Mix(64, fused=2, arithmetic=0, single=0, loads=2, broadcasts=1, stores=0, calls=0, total=4)
    assert counted.text == "2 multiply-adds, 2 loads, 1 broadcast in 4 instructions, 64 bytes at a time"
    tail = mix._counted(lines[5:7])
    assert (tail.width, tail.single, tail.loads, tail.stores) == (0, 1, 1, 1)


@in_cpp
@pytest.mark.skipif(not (shutil.which("objdump") and shutil.which("nm")), reason="binutils are not installed")
def test_loops_of_the_extension_tell_the_ideas_apart() -> None:
    if not native.module().cpu_isas()[-1].startswith("avx"):
        pytest.skip("the mix is read from x86-64 code with vectors")
    found = {r.name.partition("-")[2]: mix.of(r) for r in flight("matmul")}
    loops, rows, tile = (found[name] for name in ("loops", "rows", "tile"))
    assert loops is not None
    assert rows is not None
    assert tile is not None
    assert loops.single >= 1  # a chain of single additions
    assert rows.loads + rows.stores >= 3 * rows.fused  # each multiply-add loads two vectors and stores one
    assert tile.fused > tile.loads + tile.broadcasts  # what is loaded is used again
    assert mix.of(registry.ladder(registry.find("matmul"))[0]) is None


# The page


@pytest.fixture(scope="module")
def climbed() -> dict[str, Any]:
    problem = shapes.problem(registry.find("sum"), None, 8)
    data: dict[str, Any] = json.loads(json.dumps(ladder.climb(problem, samples=3).as_data(), allow_nan=False))
    return data


def test_gains_are_over_the_rung_below_in_the_same_flight(climbed: dict[str, Any]) -> None:
    last: dict[int, dict[str, Any]] = {}
    for rung in climbed["rungs"]:
        if rung["refusal"]:
            continue
        below = last.get(rung["flight"])
        assert rung["below"] == (below and below["rung"])
        assert rung["gain"] == (below and pytest.approx(below["seconds"] / rung["seconds"]))
        assert rung["error"] < 1e-6
        last[rung["flight"]] = rung
    assert climbed["bound"] == ("arithmetic" if climbed["intensity"] > climbed["ridge"] else "memory")
    assert climbed["intensity"] == pytest.approx(climbed["flops"] / climbed["bytes"])
    assert climbed["ridge"] == pytest.approx(climbed["peak_flops_per_second"] / climbed["peak_bytes_per_second"])


def test_a_disturbed_measurement_is_made_again() -> None:
    noisy, calm = Timing(1.0, 0.5, 2.0, 20), Timing(0.9, 0.8, 1.0, 20)
    given = iter([noisy, calm, noisy])
    assert ladder.steady(lambda: next(given)) == calm
    assert next(given) == noisy  # two were enough
    tries: list[Timing] = []
    assert ladder.steady(lambda: tries.append(noisy) or noisy) == noisy  # type: ignore[func-returns-value]
    assert len(tries) == ladder.TRIES
    assert ladder.steady(lambda: Timing(3.0, 3.0, 3.0, 1)).is_single


def test_rungs_above_the_limit_are_told(climbed: dict[str, Any]) -> None:
    fine = {**climbed, "rungs": [{**r, "share_of_peak": 0.5} for r in climbed["rungs"]]}
    assert page.doubtful(fine) is None
    fine["rungs"][2]["share_of_peak"] = 1.3
    assert (fine["rungs"][2]["rung"] + " above the limit") in (page.doubtful(fine) or "")


def test_page_and_picture_stand_alone(climbed: dict[str, Any], tmp_path: Path) -> None:
    rungs = registry.ladder(registry.find("sum"))
    html = page.page(climbed, rungs, "ulpgrad ladder sum")
    assert not re.search(r'(src|href)="(?!#)', html)
    for rung in climbed["rungs"]:
        assert html.count(f"<h3>{rung['rung']}</h3>") == 1
    assert '<span class="kt">double</span>' in html
    assert ("What changed from cpu/native-loops" in html) == (native.missing() is None)
    assert html.count("<details>") == html.count("</details>") > len(rungs)
    drawn = ET.fromstring(page.picture(climbed, "ladder").file())
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    text = "".join(drawn.itertext())
    assert all(r["rung"].removeprefix("cpu/") in text for r in climbed["rungs"] if not r["refusal"])


def test_climb_writes_what_is_asked_for(tmp_path: Path) -> None:
    done = call("ladder", "max", "--size", "4", "--samples", "1", "--plot", tmp_path / "a.svg", "--html", tmp_path / "a.html",
                "--json", tmp_path / "a.json")  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.svg").read_text().startswith("<svg")
    assert "The ladder of max" in (tmp_path / "a.html").read_text()
    assert json.loads((tmp_path / "a.json").read_text())["op"] == "max"


# Documents


def test_lines_and_listings_of_documents(
    climbed: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    (tmp_path / "ladder-sum.json").write_text(json.dumps(climbed))
    made = recorded.filled("<!-- recorded: rung sum numpy-reduce -->\n<!-- end -->\n")
    assert "> Measured, `cpu/numpy-reduce`: **" in made
    assert "over `cpu/reference`" in made
    made = recorded.filled("<!-- recorded: roofline sum -->\n<!-- end -->\n")
    assert f"{climbed['bound']} is the nearer limit" in made  # which one is, this machine says
    made = recorded.filled("<!-- recorded: code ladder/sum_loops.cpp -->\n<!-- end -->\n")
    assert "\n```cpp\nvoid sum_loops(" in made
    with pytest.raises(DataError, match="no measured rung 'tile'"):
        recorded.filled("<!-- recorded: rung sum tile -->\n<!-- end -->\n")
    with pytest.raises(DataError, match=r"no such file in csrc/cpu"):
        recorded.filled("<!-- recorded: code ladder/none.cpp -->\n<!-- end -->\n")


def commands() -> list[str]:
    """Every command of the chapters, in their order."""
    found = []
    for chapter in sorted((ROOT / "docs" / "ladders").glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", chapter.read_text(), re.DOTALL):
            found += [line.split("#")[0].strip() for line in block.splitlines()]
    return list(dict.fromkeys(line for line in found if line.startswith("ulpgrad ")))


def test_every_chapter_has_its_picture_and_is_listed() -> None:
    folder = ROOT / "docs" / "ladders"
    index = (folder / "README.md").read_text()
    for op in TAUGHT:
        assert f"({op}.md)" in index
        text = (folder / f"{op}.md").read_text()
        assert f"(../pictures/ladder-{op}.svg)" in text
        asked, _, answered = text.partition("<details>")
        numbers = [int(n) for n in re.findall(r"^(?:## Question )?(\d+)[:.] ", asked, re.MULTILINE)]
        assert numbers == list(range(1, len(numbers) + 1))
        folded = [int(n) for n in re.findall(r"^(\d+)\. ", answered, re.MULTILINE)]
        assert folded == list(range(asked.count("## Question ") + 1, len(numbers) + 1))


@pytest.mark.parametrize("line", commands())
def test_commands_of_the_chapters_run(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On problems made small: what is tested is the command, not the machine's patience."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(re.sub(r"\b\d{3,}\b", "16", line))[1:]
    if not {"--source", "--diff"} & set(words):
        words += ["--samples", "1"] + ([] if "--shape" in words else ["--size", "2"])
    done = call(*words)
    assert done.exit_code == 0, done.output + done.stderr
