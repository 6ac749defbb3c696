"""`ulpgrad.profile` of kernels on a GPU."""

from __future__ import annotations

import ulpgrad as ug


def test_a_call_inside_another_is_not_counted_twice() -> None:
    x = ug.ones((64, 64), dtype=ug.float8_e4m3fn).to("cuda")
    with ug.profile() as found:
        ug.gelu(x)
    assert [call.op.name for call in found.calls] == [
        "cast",
        "cast",
        "gelu",
    ]  # widened, rounded, and the call around them
    assert 0 < found.in_kernels <= found.seconds
