"""Launches on a device, against the stub of a driver: grid, block, shared memory, stream and every argument, and one compilation
for each kind of arguments."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ulpgrad.kernels import capabilities, native

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
    compiled = re.findall(r"^(many|blocks|attention_forward_gluon) +compiled in \d+ ms$", done.stderr, re.MULTILINE)
    assert len(compiled) == 7, done.stderr
    return done.stdout.splitlines()


def places(printed: list[str]) -> dict[str, str]:
    return {line.split()[0]: line.split()[1] for line in printed[:5]}


def launches(printed: list[str]) -> list[list[str]]:
    return [line.split() for line in printed[: printed.index("calls")] if line.startswith("launch")]


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
    first, streamed, _, _, other, _, described, _ = launches(printed)
    assert first[2:5] == ["4", "1", "1"]
    assert first[6] == str(8 * 32)
    assert first[10] == "0"
    assert streamed[2:5] == ["2", "3", "1"]
    assert streamed[10] == stream
    assert described[6] == str(4 * 32)
    assert int(described[8]) >= 16 * 32 * 2, "a block of float16 goes through shared memory"
    assert other[6] == str(8 * 32), "constants in another order are told apart"
    assert len(launches(printed)) == 8, "a grid without programs launches nothing"


def test_descriptors(printed: list[str]) -> None:
    """Sizes and boxes of a tensor descriptor are given innermost first, strides in bytes."""
    described = [line for line in printed if line.startswith("descriptor")]
    assert described[:2] == [f"descriptor address {places(printed)['matrix']} shape 96 64 strides 192 box 32 16"] * 2


def test_partitions(printed: list[str]) -> None:
    """A kernel in Gluon gets the threads of all partitions, the shared memory of its rings, and descriptors of its operands."""
    at = dict(line.split() for line in printed if line.split()[0] in ("queries", "keys", "y", "lse"))
    boxes = {
        "y": ("y", 300, 4, 64),
        "q": ("queries", 300, 4, 64),
        "k": ("keys", 200, 1, 128),
        "v": ("keys", 200, 1, 128),
    }
    wanted, parameters = [], {}
    for name, (array, length, heads, rows) in boxes.items():
        head, batch = 64 * length, 64 * length * heads
        wanted.append(f"descriptor address {at[array]} shape 64 {length} {heads} 2 strides 128 {2 * head} {2 * batch} "
                      f"box 64 {rows} 1 1")  # fmt: skip
        parameters[name] = [
            f"{n:x}" for n in (0, 2, heads, length, 64, batch, head, 64, 1)
        ]  # the map is the stub's: zeros
    before = printed[: printed.index("calls")]
    assert [line for line in before if line.startswith("descriptor")][2:] == wanted
    launch = launches(printed)[-1]
    assert launch[2:5] == ["24", "1", "1"], "three tiles of 128 queries, of eight heads"
    assert launch[6] == str(12 * 32), "two groups of four warps, and a third of which one warp loads"
    rings = (2 * 64 + 2 * 2 * 128) * 64 * 2
    assert rings < int(launch[8]) < rings + 4096
    numbers = ["4", "4", "12c", "c8", f"{2**32 - 100:x}", f"{np.float32(0.5 / math.log(2)).view(np.uint32):x}"]
    assert launch[12:] == [*parameters["y"], at["lse"], *parameters["q"], *parameters["k"], *parameters["v"], *numbers]


@pytest.mark.parametrize("name", ["add", "scaled", "leaky_relu", "softmax", "recorded"])
def test_remembered_calls(printed: list[str], name: str) -> None:
    """A call that is remembered is launched past Triton, and past the rung: with the grid, the block, the shared memory, the
    stream and the arguments of one that is not, and its result where the kernel writes."""
    at = dict(line.split() for line in printed if line.split()[0] in ("a", "b", "rows") and line.count(" ") == 1)
    lines = [i for i, line in enumerate(printed) if re.match(rf"{name} \d ", line)]
    calls = [printed[i].split()[1:] for i in lines]
    made = [printed[i - 1].split() for i in lines]
    assert len(calls) == 6
    assert {len(launch) for launch in made} == {len(made[0])}
    for (_, address, stream, *_, recorded), launch in zip(calls, made, strict=True):
        out = launch.index("parameters") + 1
        assert launch[out] == address
        assert launch[10] == stream
        assert [*launch[:10], *launch[out + 1 :]] == [*made[0][:10], *made[0][out + 1 :]]
        assert recorded == str(name == "recorded")
    assert made[0][12 + 1] == at[{"scaled": "b", "softmax": "rows"}.get(name, "a")]
    assert calls[5][2] != calls[0][2], "another stream"
    if native.missing() is None:
        assert [looked_up for *_, looked_up, _ in calls[3:]] == ["0"] * 3


def test_remembered_descriptors(printed: list[str]) -> None:
    """A remembered product describes its operands and its result to the copy unit as one does that is not."""
    at = dict(line.split() for line in printed if line.split()[0] in ("rows", "columns") and line.count(" ") == 1)
    lines = [i for i, line in enumerate(printed) if re.match(r"matmul \d ", line)]
    assert len(lines) == 6
    first = printed[lines[0] - 1]
    for i in lines:
        _, _, address, stream, *_ = printed[i].split()
        out, x, y = sorted(
            printed[i - 4 : i - 1], key=lambda line: [address, at["rows"], at["columns"]].index(line.split()[2])
        )
        assert out.startswith(f"descriptor address {address} shape 128 64 strides 256 box ")
        assert x.startswith(f"descriptor address {at['rows']} shape 96 64 strides 192 box ")
        assert y.startswith(f"descriptor address {at['columns']} shape 128 96 strides 256 box ")
        assert [line.split()[-2:] for line in printed[i - 4 : i - 1]] == [
            line.split()[-2:] for line in printed[lines[0] - 4 : lines[0] - 1]
        ]
        assert printed[i - 1] == first.replace("stream 0", f"stream {stream}")
    if native.missing() is None:
        assert [printed[i].split()[4] for i in lines[3:]] == ["0"] * 3


def test_no_other_framework(printed: list[str]) -> None:
    assert printed[-1] == "False"
