"""A plugin of pytest for runs under compute-sanitizer: CuPy asks the driver for each array, so that memcheck sees where each ends
(inside a pool's block it sees nothing); and with `--run-for SECONDS` tests that come later are skipped, so that the sanitizer
comes to its end and says what it has found."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ulpgrad.kernels import capabilities, gpu

BEGUN = time.monotonic()

if not gpu.mode() and capabilities.missing("cuda") is None:
    gpu.xp().cuda.set_allocator(None)


def pytest_addoption(parser: Any) -> None:
    parser.addoption("--run-for", type=float, default=float("inf"), metavar="SECONDS", help="skip tests after that")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: Any) -> None:
    if time.monotonic() - BEGUN > item.config.getoption("--run-for"):
        pytest.skip("its time is over")
