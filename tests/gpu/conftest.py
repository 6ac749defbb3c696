"""Tests of what runs on a GPU: on the device where there is one, else on the emulated one (ULPGRAD_CUDA=emulated), as `make test`
does; tests of compiled code want ULPGRAD_CUDA=compile. In any other process they are not collected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ulpgrad.kernels import capabilities, gpu

COMPILED = ("test_compile.py",)  # under ULPGRAD_CUDA=compile, and only there
ANYWHERE = ("test_cuda_compile.py", "test_stub_driver.py")  # start processes of their own, or need no arrays


def pytest_ignore_collect(collection_path: Path, config: Any) -> bool | None:
    name = collection_path.name
    if not name.startswith("test_") or name in ANYWHERE:
        return None
    if capabilities.missing("cuda") is not None:
        return True
    return True if (gpu.mode() == "compile") != (name in COMPILED) else None
