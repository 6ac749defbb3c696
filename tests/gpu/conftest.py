"""Tests of what runs on a GPU: on the device where there is one, else on the emulated one (ULPGRAD_CUDA=emulated), as `make test`
does; tests of compiled code want ULPGRAD_CUDA=compile. In any other process they are not collected."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ulpgrad.kernels import capabilities, gpu

COMPILED = (
    "test_compile.py",
    "test_compile_matmul.py",
    "test_compile_blocks.py",
    "test_compile_gluon.py",
)  # under ULPGRAD_CUDA=compile, and only there
ANYWHERE = ("test_cuda_compile.py", "test_stub_driver.py")  # start processes of their own, or need no arrays


def pytest_ignore_collect(collection_path: Path, config: Any) -> bool | None:
    name = collection_path.name
    if not name.startswith("test_") or name in ANYWHERE:
        return None
    if capabilities.missing("cuda") is not None:
        return True
    return True if (gpu.mode() == "compile") != (name in COMPILED) else None


@pytest.fixture(autouse=True)
def _not_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Problems of tests are small: rungs that leave such to others are tested on them as well."""
    from ulpgrad.kernels.conv import cuda_warpgroup_weight

    monkeypatch.setattr(cuda_warpgroup_weight, "WORTH", 1e-9)


@pytest.fixture(scope="session", autouse=True)
def _cupy_has_what_was_used() -> Iterator[None]:
    """What the emulated arrays lent from NumPy, CuPy has under the same name."""
    yield
    if gpu.mode() != "emulated" or importlib.util.find_spec("cupy") is None:
        return
    import cupy

    from ulpgrad.kernels import emulated

    missing = []
    for name in sorted(emulated.used):
        kind, _, method = name.rpartition(".")
        if kind != "operator" and not hasattr(getattr(cupy, kind) if kind else cupy, method):
            missing.append(name)
    assert not missing, f"CuPy has no {', '.join(missing)}"
