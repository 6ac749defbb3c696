"""What holds around every test: its random numbers do not hang on the tests before it, and it leaves no policy or pin active."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

import ulpgrad as ug
from ulpgrad import dispatch

gc.set_threshold(20_000)  # with thousands of tests in memory, and compilers at work, 700 cost a twentieth of the time


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    ug.manual_seed(0)
    yield
    state = dispatch.state
    assert dispatch.operand_policy.get() is dispatch.call_policy.get() is None
    assert state.policies == state.pinned == state.listeners == 0
