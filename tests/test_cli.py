"""The command line: what it prints is what it writes as JSON, and errors are one line that helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, AxisError, KernelError, ShapeError
from ulpgrad.kernels import registry

pytest.importorskip("typer", reason="the command line needs the extra `lab`")
from typer.testing import CliRunner, Result

from ulpgrad.bench import ladder, peak, shapes, timing
from ulpgrad.cli.app import app

# A process that behaves as an installation without typer does.
WITHOUT_TYPER = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "typer" else find(name, *rest)
sys.argv = ["ulpgrad", "doctor"]
from ulpgrad.cli import main
main()
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ulpgrad.cli", *map(str, arguments)], capture_output=True, text=True,
                          env={**os.environ, **environment})  # fmt: skip


def written(path: Path) -> Any:
    """A JSON file without NaN or infinity, which JSON does not have."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path}")

    return json.loads(path.read_text(), parse_constant=refuse)


# doctor


def test_doctor_says_what_runs_here(tmp_path: Path) -> None:
    done = process("doctor", "--json", tmp_path / "doctor.json")
    assert done.returncode == 0, done.stderr
    found = written(tmp_path / "doctor.json")
    assert {row["family"] for row in found["families"]} == set(registry.families())
    assert all(row["family"] in done.stdout for row in found["families"])
    assert found["versions"]["numpy"] == np.__version__
    assert found["machine"]["cores"] >= 1
    assert "ULPGRAD_ISA" in done.stdout


def test_doctor_without_the_extension_says_why(tmp_path: Path) -> None:
    done = process("doctor", "--json", tmp_path / "doctor.json", ULPGRAD_NATIVE="0")
    assert done.returncode == 0, done.stderr
    found = written(tmp_path / "doctor.json")
    assert found["extension"] == {"usable": False, "reason": "ULPGRAD_NATIVE=0 leaves the C++ extension unused"}
    matmul = next(row for row in found["families"] if row["family"] == "matmul")
    assert all("ULPGRAD_NATIVE=0" in reason for name, reason in matmul["unavailable"].items() if "native" in name)
    assert "ULPGRAD_NATIVE=0" in done.stdout


def test_without_typer_one_line_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_TYPER], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "ulpgrad: typer not installed: pip install 'ulpgrad[lab]'\n"


def test_version_and_help() -> None:
    assert call("--version").output == f"ulpgrad {ug.__version__}\n"
    for command in ([], ["doctor"], ["explain"], ["ladder"], ["study"]):
        assert "--json" in call(*command, "--help").output or not command
        assert call(*command, "--help").exit_code == 0


# explain


def test_explain_names_the_rung_that_dispatch_takes(tmp_path: Path) -> None:
    done = call("explain", "matmul", "-s", "64,784", "-s", "784,512", "-f", "bfloat16", "--json", tmp_path / "e.json")
    assert done.exit_code == 0, done.output
    found = written(tmp_path / "e.json")
    taken = ug.explain("matmul", ug.ones((64, 784), dtype=ug.bfloat16), ug.ones((784, 512), dtype=ug.bfloat16)).taken
    assert found["taken"] == taken
    assert [r["rung"] for r in found["rungs"] if r["taken"]] == [taken]
    assert all(r["rung"] in done.output for r in found["rungs"])


@pytest.mark.parametrize(("op", "arguments", "expected"), [
    ("softmax", ["-s", "4,5"], "axis=1"),
    ("sum", ["-s", "4,5", "-p", "axis=-1"], "axis=(1,)"),
    ("sum", ["-s", "4,5"], "axis=(0, 1)"),
    ("conv2d", ["-s", "2,3,8,8", "-s", "4,3,3,3", "-p", "padding=1"], "padding=(1, 1)"),
    ("gelu", ["-s", "7", "-p", "approximate=tanh"], "approximate=tanh"),
    ("cast", ["-s", "7", "-p", "dtype=float16"], "dtype=float16"),
    ("embedding", ["-s", "9,4", "-s", "3"], "int64[3]"),
    ("layer_norm", ["-s", "3,8", "-s", "-", "-s", "8"], "None, float32[8]"),
])  # fmt: skip
def test_explain_completes_a_call(op: str, arguments: list[str], expected: str) -> None:
    done = call("explain", op, *arguments)
    assert done.exit_code == 0, done.output
    assert expected in done.output.replace("\n", " ")


@pytest.mark.parametrize(("arguments", "expected"), [
    (["explain", "matmull"], "did you mean matmul"),
    (["ladder", "sofmax"], "did you mean softmax"),
    (["explain", "matmul", "-s", "2,3", "-s", "4,5"], "inner sizes differ: (2, 3) @ (4, 5): 3 != 4"),
    (["explain", "matmul", "-s", "2,3"], "1 operand given, expected 2"),
    (["explain", "matmul", "-s", "2;3"], "expected sizes with commas"),
    (["explain", "softmax", "-s", "4", "-p", "axis"], "expected NAME=VALUE"),
    (["explain", "softmax", "-s", "4", "-p", "axes=1"], "no parameter 'axes'; expected axis"),
    (["explain", "softmax", "-s", "4", "-f", "float31"], "float31"),
    (["ladder", "matmul", "--size", "4", "-s", "2,2"], "exclude each other"),
    (["study", "digit"], "did you mean digits"),
    (["study", "--formats", "float31", "--out", "unused"], "'float31' given, expected some of float64, float32"),
    (["doctor", "--json", "no-such-folder/doctor.json"], "there is no folder"),
])  # fmt: skip
def test_mistakes_are_one_helpful_line(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call(*arguments)
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("ulpgrad: ")
    assert done.stderr.count("\n") == 1
    assert expected in done.stderr


def test_wrong_options_exit_with_2() -> None:
    for arguments in (["nonsense"], ["ladder", "matmul", "--samples", "0"], ["explain"]):
        assert call(*arguments).exit_code == 2


def test_explain_of_the_library() -> None:
    a = ug.ones((3, 4))
    found = ug.explain("matmul", a, a.mT)
    with ug.use(matmul="cpu/reference"):
        pinned = ug.explain("matmul", a, a.mT)
    assert pinned.taken == "cpu/reference"
    assert found.taken in repr(found)
    assert "-> cpu/reference" in str(pinned)
    assert "cpu/reference is pinned" in str(pinned)
    with pytest.raises(KernelError, match="did you mean"):
        ug.explain("matmull", a, a)
    with pytest.raises(ShapeError, match="inner sizes differ"):
        ug.explain("matmul", a, a)
    with pytest.raises(AxisError, match="axis 7"):
        ug.explain("softmax", a, axis=7)
    with pytest.raises(ArgumentError, match="no parameter 'axs'"):
        ug.explain("softmax", a, axs=0)


# ladder


def test_ladder_times_every_rung(tmp_path: Path) -> None:
    done = call("ladder", "softmax", "--size", "8", "--samples", "3", "--json", tmp_path / "ladder.json")
    assert done.exit_code == 0, done.output
    found = written(tmp_path / "ladder.json")
    names = [r.name for r in registry.ladder(registry.find("softmax"))]
    assert [r["rung"] for r in found["rungs"]] == names
    for rung in found["rungs"]:
        if rung["refusal"] is None:
            assert 0 < rung["p20"] <= rung["seconds"] <= rung["p80"]
            assert rung["share_of_peak"] > 0
        assert rung["rung"] in done.output
    ran = [r for r in found["rungs"] if r["refusal"] is None]
    assert ran[1]["gain"] == pytest.approx(ran[0]["seconds"] / ran[1]["seconds"])


def test_ladder_says_why_a_rung_did_not_run() -> None:
    done = call("ladder", "matmul", "--size", "16", "-f", "int32", "--samples", "3")
    assert done.exit_code == 0, done.output
    assert "not here: takes" in done.output.replace("\n", " ")


@pytest.mark.parametrize("op", registry.ops().values(), ids=lambda op: op.name)
def test_every_op_has_a_problem_that_runs(op: Any) -> None:
    """On its standard problem, made small, in every floating format and one other that the op takes."""
    size = 4 if op.family != "random" else 64
    for form in dict.fromkeys([shapes.default_format(op), *(f for f in op.formats if f.kind == "float")]):
        problem = shapes.problem(op, form, size)
        rung = registry.ladder(op)[-1] if op.mutates else registry.ladder(op)[0]
        if rung.choose(registry.Request(op, "cpu", problem.formats, problem.arrays, problem.params))[1] is None:
            out = ladder.call(problem, rung)()
            for a in out if isinstance(out, tuple) else (out,):
                assert a.dtype.kind != "f" or np.isfinite(a).all()


def test_slow_calls_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(timing, "SLOW", 0.0)
    assert timing.measure(lambda: calls.append(1)).is_single
    assert len(calls) == 1
    assert timing.measure(lambda: calls.append(1), compiles=True).is_single
    assert len(calls) == 3


def test_peaks_are_plausible() -> None:
    from ulpgrad.formats import FORMATS, float32, float64

    single, double = peak.flops(float32), peak.flops(float64)
    assert single is not None
    assert double is not None
    assert 1e8 < double < 1.5 * single
    assert peak.flops(FORMATS["int32"]) is None
    assert peak.bandwidth(1 << 20) > 1e8


# Writing


def test_nothing_half_written_when_the_disk_is_full(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))\n"
        "sys.argv = ['ulpgrad', 'doctor', '--json', 'doctor.json']\n"
        "from ulpgrad.cli import main; main()"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1, done.stderr
    assert "doctor.json: not written, the file is too large (no half file is left)" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_replaces_a_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    path.write_text("old")
    assert call("explain", "relu", "-s", "3", "--json", path).exit_code == 0
    assert written(path)["op"] == "relu"
    assert [p.name for p in tmp_path.iterdir()] == ["e.json"]


def test_formats_side_by_side_and_one_in_full(tmp_path: Path) -> None:
    every = call("formats", "--json", tmp_path / "all.json")
    assert every.exit_code == 0
    for name in ("float8_e4m3fn", "mxfp4_e2m1", "q7.8", "binary8p3se"):
        assert name in every.output
    rows = {row["name"]: row for row in written(tmp_path / "all.json")}
    assert (rows["float8_e4m3fn"]["largest"], rows["q7.8"]["largest"], rows["mxfp4_e2m1"]["bits"]) == (
        448,
        127.99609375,
        4.25,
    )
    one = call("formats", "float4_e2m1fn", "--at", "2.6", "--json", tmp_path / "one.json")
    assert one.exit_code == 0
    value = written(tmp_path / "one.json")["values"][0]
    assert (value["nearest_even"], value["toward_zero"], value["to_odd"], value["code"]) == (3, 2, 3, "0x5")
    assert value["stochastic"]["3"] == pytest.approx(0.6, abs=0.01)
    for wrong in (("formats", "e99m9"), ("formats", "--at", "1")):
        assert call(*wrong).exit_code == 1
