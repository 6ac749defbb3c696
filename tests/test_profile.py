"""`ulpgrad.profile`, and the profile of training steps."""

from __future__ import annotations

import io
import time
from contextlib import redirect_stderr

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.bench.peers import profiled
from ulpgrad.bench.peers.profiled import Line, Step


def test_every_kernel_call_is_timed() -> None:
    x, w = ug.ones((32, 64)), ug.ones((64, 16), requires_grad=True)
    with ug.profile() as found:
        ug.gelu(x @ w).sum().backward()
        ug.exp(x)
        ug.exp(x)
        time.sleep(0.01)
    names = [call.op.name for call in found.calls]
    assert names[:3] == ["matmul", "gelu", "sum"]
    assert {"gelu_gradient", "matmul"} <= set(names[3:])
    kinds = {kind.first.op.name: kind for kind in found.kinds()}
    assert len(kinds["exp"].calls) == 2
    product = found.calls[0]
    assert product.operands == ("float32[32,64]", "float32[64,16]")
    assert product.flops == 2 * 32 * 64 * 16
    assert product.bytes == 4 * (32 * 64 + 64 * 16 + 32 * 16)
    assert product.written == 4 * 32 * 16
    assert 0 < found.in_kernels < found.seconds - 0.01
    text = str(found)
    assert "exp" in text.split("\n")[1] + text
    assert f"in {len(names)} kernel calls" in text


def test_a_profile_ends_with_its_block() -> None:
    with ug.profile() as found:
        ug.exp(ug.ones(3))
    ug.exp(ug.ones(3))
    assert len(found.calls) == 1
    assert found.seconds > 0
    assert not ug.dispatch.state.special
    with ug.profile() as nothing:
        pass
    assert nothing.kinds() == []
    assert "0 kernel calls" in str(nothing)


def test_profile_and_log_go_together() -> None:
    heard = io.StringIO()
    ug.log_kernels()
    try:
        with redirect_stderr(heard), ug.profile() as found:
            ug.exp(ug.ones(3))
    finally:
        ug.log_kernels(False)
    assert heard.getvalue().startswith("exp")
    assert len(found.calls) == 1


def test_many_operands_are_cut_short() -> None:
    weights = [ug.ones(4, requires_grad=True) for _ in range(3)]
    for w in weights:
        w.grad = ug.ones(4)
    with ug.profile() as found:
        ug.optim.AdamW(weights).step()
    (kind,) = found.kinds()
    assert len(kind.calls) == 3
    assert all(np.all(w.numpy() < 1) for w in (w.detach() for w in weights))
    assert "adamw_step" in str(found) or "adam_step" in str(found)


def test_steps_are_shown_with_what_lies_between() -> None:
    lines = tuple(Line(f"op{i}", "cpu/x", "float32[2]", 1, (20 - i) * 1e-6, 1e-6) for i in range(14))
    step = Step("mlp", 1e-3, lines)
    assert Step.from_data(step.as_data() | {"lines": [vars(line) for line in lines]}) == step
    rows = profiled.rows(step)
    assert [row[0] for row in rows[12:]] == ["others", "all kernels", "between them", "the step"]
    assert rows[0] == ("op0", "cpu/x", "1", "20 us", "2%", "5%", "float32[2]")
    assert rows[13][2:5] == ("14", "189 us", "19%")
    assert rows[14][3] == "811 us"


def test_a_step_is_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = profiled.run("mlp", 2, quick=True)
    assert {"linear", "matmul", "adam_step", "relu"} <= {line.op for line in found.lines}
    assert all(line.seconds > 0 for line in found.lines)
    assert all(line.least > 0 for line in found.lines)
    with pytest.raises(ug.errors.ArgumentError, match="mlp, cnn, transformer"):
        profiled.run("rnn", 2)
