"""Launches on a device, against the stub of a driver: grid, block, shared memory, stream and every argument, and one compilation
for each kind of arguments."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ulpgrad.kernels import capabilities

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the driver printed while launches.py ran."""
    if capabilities.missing("triton") is not None:
        pytest.skip(str(capabilities.missing("triton")))
    compiler = shutil.which(os.environ.get("CC", "gcc")) or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler, which Triton's launcher needs")
    folder = tmp_path_factory.mktemp("driver")
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-Wl,-soname,libcuda.so.1", "-o", folder / "libcuda.so.1",
                    HERE / "stub_driver.c"], check=True)  # fmt: skip
    env = {**os.environ, "ULPGRAD_CUDA": "emulated", "TRITON_LIBCUDA_PATH": str(folder),
           "TRITON_CACHE_DIR": str(folder / "cache"), "ULPGRAD_LOG": "kernels"}  # fmt: skip
    env.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, HERE / "launches.py"], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^(many|blocks) +compiled in \d+ ms$", done.stderr, re.MULTILINE)) == 6, done.stderr
    return done.stdout.splitlines()


def places(printed: list[str]) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in printed[:5]}


def launches(printed: list[str]) -> list[list[str]]:
    return [line.split() for line in printed if line.startswith("launch")]


def test_arguments_arrive(printed: list[str]) -> None:
    at = places(printed)
    first, streamed, odd, _, _, three, *_ = launches(printed)
    numbers = {"n": "3e8", "wide": "10000000000", "half": "3f000000", "quarter": "3e800000"}
    assert first[-6:] == [at["x"], at["bits"], numbers["n"], numbers["wide"], numbers["half"], at["out"]]
    assert streamed[-6:] == [at["x"], at["bits"], numbers["n"], numbers["wide"], numbers["quarter"], at["out"]]
    assert odd[-6:] == [at["x"], at["odd"], numbers["n"], numbers["wide"], numbers["half"], at["out"]]
    assert three[-7:] == [at["x"], at["bits"], numbers["n"], "3", numbers["wide"], numbers["half"], at["out"]]


def test_grid_block_and_stream(printed: list[str]) -> None:
    stream = next(line.split()[1] for line in printed if line.startswith("stream"))
    first, streamed, _, _, other, *_, described = launches(printed)
    assert first[2:5] == ["4", "1", "1"]
    assert first[6] == str(8 * 32)
    assert first[10] == "0"
    assert streamed[2:5] == ["2", "3", "1"]
    assert streamed[10] == stream
    assert described[6] == str(4 * 32)
    assert int(described[8]) >= 16 * 32 * 2, "a block of float16 goes through shared memory"
    assert other[6] == str(8 * 32), "constants in another order are told apart"
    assert len(launches(printed)) == 7, "a grid without programs launches nothing"


def test_descriptors(printed: list[str]) -> None:
    """Sizes and boxes of a tensor descriptor are given innermost first, strides in bytes."""
    described = [line for line in printed if line.startswith("descriptor")]
    assert described == [f"descriptor address {places(printed)['matrix']} shape 96 64 strides 192 box 32 16"] * 2


def test_no_other_framework(printed: list[str]) -> None:
    assert printed[-1] == "False"
