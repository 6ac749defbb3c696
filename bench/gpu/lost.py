"""A device that a process has lost: where a kernel has read or written elsewhere than in memory, all that its process asks of the
device from then on fails.

As a plugin of pytest this ends the worker in which a test has lost it: pytest-xdist starts another for the other tests. Without
workers the run ends, and says why.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

from ulpgrad.kernels import capabilities, gpu

ENDED = 70  # the status of a process that has lost its device


def error() -> str | None:
    """Why nothing that this process asks of its device runs any more; None while it does."""
    if gpu.mode() or capabilities.missing("cuda") is not None:
        return None
    runtime = gpu.xp().cuda.runtime
    try:
        runtime.deviceSynchronize()
    except runtime.CUDARuntimeError as found:
        return str(found)
    return None


class Watch:
    """Looks after each test that has failed, when all of its reports are out."""

    def __init__(self, is_worker: bool) -> None:
        self.is_worker = is_worker
        self.has_failed = False

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.has_failed |= report.failed

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        has_failed, self.has_failed = self.has_failed, False
        reason = error() if has_failed else None
        if reason is None:
            return
        if self.is_worker:
            os._exit(ENDED)
        pytest.exit(f"the device is lost since {nodeid}: {reason}", returncode=ENDED)


def pytest_configure(config: Any) -> None:
    is_worker = hasattr(config, "workerinput")
    if is_worker or not getattr(config.option, "numprocesses", None):  # else tests run in other processes
        config.pluginmanager.register(Watch(is_worker))


__all__ = ["ENDED", "error"]
