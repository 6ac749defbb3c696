"""What `make gpu-check` measures and records, as far as no GPU is asked: layers of networks, their sums, tables and pictures,
what compute-sanitizer says. Every time here is made up."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich", reason="the table needs the extra `lab`")

from ulpgrad.bench.gpu import check, draw, layers, lost, sanitizer, shown, suites
from ulpgrad.bench.gpu.networks import NETWORKS, Layer, shrunk
from ulpgrad.bench.gpu.record import Record
from ulpgrad.bench.peers import recorded
from ulpgrad.bench.peers.work import Outcome
from ulpgrad.errors import DataError

PEERS = ("cuDNN channels last", "cuDNN NCHW")


@pytest.mark.parametrize(
    ("name", "convolutions", "products", "weights"),
    [
        (
            "ResNet-50",
            53,
            4_087_136_256,
            25_557_032 - 2_049_000 - 53_120,
        ),  # all parameters, less those of dense layer and norms
        ("VGG-16", 13, 15_346_630_656, 14_714_688 - 4_224),  # those of the features, less biases
        ("U-Net", 23, 150_428_424_448, 31_030_658 - 6_850),
    ],
)
def test_layers_come_to_what_is_known_of_the_networks(
    name: str, convolutions: int, products: int, weights: int
) -> None:
    network = NETWORKS[name]
    assert sum(network.layers.values()) == convolutions
    assert network.products == products
    assert sum(layer.weights * times for layer, times in network.layers.items()) == weights
    assert [layer.is_first for layer in network.layers] == [True] + [False] * (len(network.layers) - 1)


@pytest.mark.parametrize(
    ("name", "dense", "known"), [("ResNet-50", 2048 * 1000, 4.1e9), ("VGG-16", 123_633_664, 15.5e9)]
)
def test_published_counts_of_multiply_adds(name: str, dense: int, known: float) -> None:
    """Of 224 x 224 images, with the dense layers: as those who publish the networks count."""
    assert NETWORKS[name].products + dense == pytest.approx(known, rel=0.005)


def test_a_smaller_layer_has_the_same_windows() -> None:
    for network in NETWORKS.values():
        for layer in network.layers:
            small = shrunk(layer, 16, 8)
            assert (small.kernel, small.stride, small.padding) == (layer.kernel, layer.stride, layer.padding)
            assert small.positions > 1
            assert small.products <= layer.products


def made_up(name: str, rate: float, peers: dict[str, float], limit: float | None = 1000.0) -> Outcome:
    spread = {who: (0.9 * r, 1.1 * r) for who, r in {"ulpgrad": rate, **peers}.items()}
    return Outcome(name, "TFLOP/s", 1, rate, peers, limit, (), {}, spread, dict.fromkeys(spread, 30))


def found_for(name: str, seed: int) -> layers.Found:
    random, found = np.random.default_rng(seed), {}
    for layer in NETWORKS[name].layers:
        for one in layers.passes(layer):
            last = random.uniform(100, 700)
            peers = {PEERS[0]: last, PEERS[1]: last * random.uniform(0.3, 1)}
            found[layer, one] = made_up(f"{name} bfloat16 {one}, {layer}", last * random.uniform(0.6, 1.2), peers)
    return found


def test_a_network_takes_the_time_of_its_layers() -> None:
    network = NETWORKS["ResNet-50"]
    found = found_for("ResNet-50", 0)
    for over, parts in layers.WHOLE.items():
        one = layers.whole(network, "bfloat16", over, found)
        for who, seen in (("ulpgrad", one.rate), *one.peers.items()):
            seconds = 0.0
            for layer, times in network.layers.items():
                for name in parts:
                    if layer.is_first and name == "input gradient":
                        continue
                    rates = {"ulpgrad": found[layer, name].rate, **found[layer, name].peers}
                    seconds += times * 2 * layer.products / (rates[who] * 1e12)
            assert seen == pytest.approx(1 / seconds)
        assert one.limit is not None
        assert one.spread["ulpgrad"] == pytest.approx((0.9 * one.rate, 1.1 * one.rate))
    assert [v.target for v in one.verdicts] == [">= 1x cuDNN NCHW", ">= 0.5x cuDNN channels last"]
    forwards = layers.whole(network, "bfloat16", "forward", found)
    assert forwards.limit == pytest.approx(1000e12 / (2 * network.products))
    assert forwards.verdicts == ()


def entry(name: str, found: layers.Found) -> dict[str, Any]:
    network = NETWORKS[name]
    lines = [
        {
            "layer": str(layer),
            **asdict(layer),
            "times": times,
            "passes": {one: found[layer, one].as_data() for one in layers.passes(layer) if (layer, one) in found},
        }
        for layer, times in network.layers.items()
    ]
    sums = {over: layers.whole(network, "bfloat16", over, found).as_data() for over in layers.WHOLE}
    return {"network": name, "format": "bfloat16", "images": network.images, "layers": lines, "whole": sums}


def test_documents_show_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "RESULTS", tmp_path)
    text = "<!-- recorded: networks -->\n<!-- end -->\n"
    assert "Nothing of this has been measured" in recorded.filled(text)
    made = entry("U-Net", found_for("U-Net", 1))
    record = {
        "networks": [made, {**made, "format": "float32", "layers": []}],
        "gpu": {"devices": [{"name": "Abacus 9"}]},
        "versions": {"triton": "1", "cupy": "2", "torch": "3", "cudnn": 4},
        "commit": "abc",
    }
    (tmp_path / "gpu.json").write_text(json.dumps(record))
    filled = recorded.filled(text)
    assert "| U-Net, bfloat16, forward and backward |" in filled
    assert "![U-Net in bfloat16, batches of 4](pictures/gpu-u-net-bfloat16.svg)" in filled
    assert "| 1024x28² to 512, 2x2, stride 2, transposed | 1 |" in filled
    assert re.search(r"\| 64x570² to 64, 3x3 \| 1 \| [\d.]+, \d+%, [\d.]+x, [\d.]+x \|", filled)
    assert "Abacus 9; triton 1, cupy 2, torch 3, cudnn 4; commit abc." in filled
    assert recorded.filled(filled) == filled
    assert "float32," not in filled  # nothing was measured


@pytest.mark.parametrize("has_limit", [True, False])
def test_a_picture_of_layers_has_every_layer_and_contender(has_limit: bool) -> None:
    pytest.importorskip("matplotlib")
    made = entry("ResNet-50", found_for("ResNet-50", 2))
    if not has_limit:
        for line in made["layers"]:
            for data in line["passes"].values():
                data["limit"] = None
    picture = shown.picture(made)
    drawn = picture.file()
    assert picture.name == "gpu-resnet-50-bfloat16"
    for word in (*PEERS, *shown.PASSES, "ulpgrad", "% of peak" if has_limit else "TFLOP/s"):
        assert word in drawn
    for layer in NETWORKS["ResNet-50"].layers:
        assert str(layer) in drawn


MEMORY = """========= COMPUTE-SANITIZER
{}
12 passed, 3 deselected in 4.20s
========= ERROR SUMMARY: {}
"""
RACES = """========= COMPUTE-SANITIZER
========= Error: Race reported between Write access at 0x100 and Read access at 0x140 in k [16 hazards]
.... 4 passed in 1.00s
========= RACECHECK SUMMARY: {}
"""


@pytest.mark.parametrize(
    ("tool", "output", "is_clean", "outcome"),
    [
        ("memcheck", MEMORY.format("............", "0 errors"), True, "clean"),
        ("memcheck", MEMORY.format("========= Invalid __global__ write of size 4 bytes", "1 error"), False, "1 error"),
        ("memcheck", MEMORY.format("", "36 errors"), False, "36 errors"),
        ("memcheck", "========= COMPUTE-SANITIZER\n12 passed in 4.20s\n", None, "no summary: the tool did not come to its end"),
        ("memcheck", "no tests ran in 0.1s\n========= ERROR SUMMARY: 0 errors\n", None, "no test has passed"),
        ("racecheck", RACES.format("0 hazards displayed (0 errors, 0 warnings)"), True, "clean"),
        ("racecheck", RACES.format("1 hazard displayed (1 error, 0 warnings)"), False, "1 error"),
        ("racecheck", RACES.format("12 hazards displayed (0 errors, 12 warnings)"), False, "12 warnings"),
        ("racecheck", RACES.format("3 hazards displayed (2 errors, 1 warning)"), False, "2 errors, 1 warning"),
        ("racecheck", MEMORY.format("", "0 errors"), None, "no summary"),
    ],
)  # fmt: skip
def test_what_a_sanitizer_says(tool: str, output: str, is_clean: bool | None, outcome: str) -> None:
    found = sanitizer.read(tool, output)
    assert found["is_clean"] is is_clean
    assert outcome in found["outcome"]


def program(tmp_path: Path, last: str) -> Path:
    """Runs what it is given behind its own options, and says that it counted."""
    path = tmp_path / sanitizer.PROGRAM
    path.write_text(
        f"#!{sys.executable}\nimport subprocess, sys\n"
        f"done = subprocess.run(sys.argv[sys.argv.index({sys.executable!r}):])\nprint({last!r})\nsys.exit(done.returncode)\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_tests_run_under_the_sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For so long that the sanitizer comes to its end within its time."""
    suite = tmp_path / "test_it.py"
    suite.write_text(
        "import time\ndef test_one():\n    pass\ndef test_two():\n    time.sleep(60)\ndef test_bad():\n    assert False\n"
    )
    where = ("--rootdir", str(tmp_path), str(suite), "-k")
    path = program(tmp_path, "========= ERROR SUMMARY: 0 errors")
    found = sanitizer.check(path, "memcheck", 60, *where, "one")
    assert (found["outcome"], found["passed"], found["status"], found["is_clean"]) == ("clean", 1, 0, True), found
    found = sanitizer.check(path, "memcheck", 1, *where, "two")
    assert (found["outcome"], found["is_clean"]) == ("stopped after 1 s", None)
    found = sanitizer.check(path, "memcheck", 60, *where, "one or bad")
    assert found["is_clean"] is None
    assert "tests failed under it" in found["outcome"]
    monkeypatch.setattr(sanitizer, "TESTING", 0.0)
    found = sanitizer.check(path, "memcheck", 60, *where, "one or two")
    assert (found["passed"], found["status"]) == (0, 0), "tests that come too late are skipped"
    assert "no test has passed" in found["outcome"]


def names(failed: list[str]) -> list[str]:
    """Of the tests in lines of pytest's summary."""
    return [line.partition(" - ")[0].rpartition("::")[2] for line in failed]


@pytest.mark.parametrize("heard", [signal.default_int_handler, signal.SIG_IGN])
def test_tests_that_take_too_long_tell_what_has_failed(
    heard: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the background, where shells have processes ignore what they are interrupted by."""
    suite, log = tmp_path / "test_it.py", tmp_path / "log"
    suite.write_text("import time\ndef test_bad():\n    assert 1 == 2\ndef test_long():\n    time.sleep(600)\n")
    monkeypatch.setattr(suites, "GRACE", 6)
    before = signal.signal(signal.SIGINT, heard)
    try:
        for seconds in (12, 30, 90):  # as many as the machine takes to come to the tests
            found = suites.run(seconds, 1, "--rootdir", str(tmp_path), str(suite), log=log)
            if found["failed"]:
                break
    finally:
        signal.signal(signal.SIGINT, before)
    assert found["status"] == -1
    assert names(found["failed"]) == ["test_bad"]
    assert found["last"] == [f"stopped after {seconds} s"]
    assert "assert 1 == 2" in log.read_text()


LOSING = """import os, pytest, state
def test_before():
    pass
def test_bad():
    state.lost = True
    assert False
@pytest.mark.parametrize("i", range(6))
def test_after(i):
    assert not state.lost
"""
# Stands for a device: it is lost where a test says so.
DEVICE = "import state\nfrom ulpgrad.bench.gpu import lost\nlost.error = lambda: 'an illegal address' if state.lost else None\n"


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_test_that_loses_the_device_takes_no_other_along(
    jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.py").write_text("lost = False\n")
    (tmp_path / "device.py").write_text(DEVICE)
    suite, log = tmp_path / "test_it.py", tmp_path / "log"
    suite.write_text(LOSING)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    found = suites.run(120, jobs, "--rootdir", str(tmp_path), "-p", "device", str(suite), log=log)
    if jobs == 1:
        assert found["status"] == lost.ENDED
        assert "test_it.py::test_bad: an illegal address" in log.read_text()
        assert "1 failed, 1 passed" in log.read_text()
    else:
        assert set(names(found["failed"])) == {"test_bad"}
        assert "7 passed" in log.read_text()


def test_a_part_goes_on_behind_a_row_that_loses_the_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "python"  # in the place of the process that measures: its second row is the last one
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\nfirst = int(sys.argv[sys.argv.index('--first') + 1])\n"
        "rows, failed = [[{'work': 'a'}], [{'work': 'c'}]][first > 0], [[{'work': 'b', 'error': 'lost'}], []][first > 0]\n"
        "found = {'rows': rows, 'failed': failed, 'begun': 3 if first else 2, 'wrong': len(failed)}\n"
        "json.dump(found, open(sys.argv[sys.argv.index('--json') + 1], 'w'))\n"
        f"sys.exit(0 if first == 2 else {lost.ENDED})\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(check.sys, "executable", str(program))
    found = Record(tmp_path / "gpu.json", {})
    check.apart(found, check.TABLE, 60)
    record = json.loads((tmp_path / "gpu.json").read_text())
    assert [row["work"] for row in record["rows"]] == ["a", "c"]
    assert record["failed"] == [{"work": "b", "error": "lost"}]
    assert found.wrong == 1


def test_files_of_tests_are_there() -> None:
    root = Path(__file__).parents[1]
    for file in (*check.FIRST.values(), *check.ELSEWHERE, check.ALL):
        assert (root / file).exists(), file


def test_torch_that_cannot_be_imported_is_a_peer_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: str) -> None:
        raise ImportError("libcudnn.so: no such file")

    monkeypatch.setattr(draw.gpu, "mode", lambda: "")
    monkeypatch.setattr(draw, "imported", broken)
    draw.torch.cache_clear()
    assert draw.torch() is None
    assert "torch is left out: ImportError: libcudnn.so" in capsys.readouterr().out
    draw.torch.cache_clear()


def test_facts_need_no_git(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("COMMIT", "abc")
    monkeypatch.setattr(draw, "torch", lambda: None)
    assert check.facts()["commit"] == "abc"


def test_where_the_sanitizer_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitizer, "places", lambda: iter([tmp_path / "nowhere"]))
    (line,) = sanitizer.run(1)
    assert line["is_clean"] is None
    assert "compute-sanitizer is not found" in line["outcome"]
    monkeypatch.undo()
    path = program(tmp_path, "")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sanitizer.program() == path
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "toolkit"))
    (tmp_path / "toolkit" / "bin").mkdir(parents=True)
    path.rename(tmp_path / "toolkit" / "bin" / path.name)
    assert sanitizer.program() == tmp_path / "toolkit" / "bin" / path.name


def test_networks_are_chosen_by_name() -> None:
    assert check.chosen("all") == ["ResNet-50", "VGG-16", "U-Net"]
    assert check.chosen("none") == []
    assert check.chosen("U-Net,VGG-16") == ["U-Net", "VGG-16"]
    with pytest.raises(DataError, match="no network 'LeNet': expected ResNet-50, VGG-16, U-Net, all or none"):
        check.chosen("LeNet")


def test_a_transposed_layer_changes_places() -> None:
    turned, plain = Layer(8, 4, 16, 2, 2, is_turned=True), Layer(8, 4, 16, 2, 2)
    names = {one: (layers.op_of(plain, one).name, layers.op_of(turned, one).name) for one in layers.PASSES}
    assert names == {
        "forward": ("conv2d", "conv2d_input_gradient"),
        "input gradient": ("conv2d_input_gradient", "conv2d"),
        "weight gradient": ("conv2d_weight_gradient", "conv2d_weight_gradient"),
    }
