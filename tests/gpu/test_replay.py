"""What a rung asked of a device, asked again without it: the same bits for other operands, as a script and as a remembered
call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.kernels import capabilities, gpu, native, registry, replay
from ulpgrad.kernels.registry import Request, Rung
from ulpgrad.kernels.spec import Op
from ulpgrad.kernels.triton_arguments import Described

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import OPS, calls  # the CPU's, whose samples serve here

RUNGS = [(op, rung) for op in OPS.values() for rung in registry.ladder(op, "cuda") if rung.replays]
FORMS = (ug.float32, ug.bfloat16, ug.int32)
SMALL = 1 << 11


@pytest.fixture(autouse=True)
def _garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """New memory on the emulated device holds what no kernel would leave there."""
    if gpu.mode() != "emulated":
        return
    from ulpgrad.kernels import emulated

    def empty(shape: Any, dtype: Any = float, *_: Any) -> Any:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        return emulated.ndarray(np.full(size, 0xFE, np.uint8).view(dtype).reshape(shape))

    monkeypatch.setattr(emulated, "empty", empty, raising=False)


def there(array: Any) -> Any:
    """A copy of an array on the device, laid out as it is."""
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    return gpu.xp().array(np.asarray(array, order=order), order=order)


@pytest.mark.parametrize(("op", "rung"), [pytest.param(op, rung, id=f"{op.name}-{rung.name}") for op, rung in RUNGS])
def test_a_script_gives_what_its_rung_gives(op: Op, rung: Rung) -> None:
    """On operands that hold other values, into memory that starts as garbage."""
    if rung.unavailable():
        pytest.skip(rung.unavailable())
    form = next(f for f in (*FORMS, *rung.formats) if f in rung.formats)
    found = ran = 0
    samples = [s for s in op.samples() if max((np.size(a) for a in s.arrays if a is not None), default=0) <= SMALL]
    for _, _, given, formats, params in calls(op, form, ("contiguous", "transposed"), samples):
        if dispatch._promoted(op, formats) != formats:
            continue
        arrays = tuple(None if a is None else there(a) for a in given)
        others = tuple(None if a is None else there(_turned(a)) for a in given)
        if rung.refusal(Request(op, "cuda", formats, arrays, params)):
            continue
        ran += 1
        with dispatch.use(**{op.name: rung.name}), np.errstate(all="ignore"):
            run = dispatch.make_plan(op, "cuda:0", formats, arrays, params).run
            gpu.state.heard = []
            results = run(*arrays, **params)
            heard, gpu.state.heard = gpu.state.heard, None
            if any(isinstance(a, Described) for h in heard if isinstance(h, replay.Launched) for a in h.arguments):
                pytest.skip("descriptors are made again for a driver only: test_stub_driver.py")
            script = replay.written(heard, arrays, results)
            if script is None:  # a copy had to be made, or the result is a view
                continue
            found += 1
            expected, again = run(*others, **params), script[0].run(*others)
        for a, b in zip(_all(expected), _all(again), strict=True):
            assert gpu.to_host(a).tobytes() == gpu.to_host(b).tobytes()
            assert (a.shape, a.strides, a.dtype) == (b.shape, b.strides, b.dtype)
    assert found or not ran, "no call of this rung can be replayed"


def _turned(array: Any) -> Any:
    """An array of the same layout, with its values the other way round."""
    out = np.empty_like(array)
    out[...] = np.flip(array)
    return out


def _all(results: Any) -> tuple[Any, ...]:
    return results if isinstance(results, tuple) else (results,)


CALLS: dict[str, Callable[..., ug.Tensor]] = {
    "add": lambda x, y: ug.add(x, y),
    "+": lambda x, y: x + y,
    "with itself": lambda x, y: x * x,
    "with what shares its memory": lambda x, y: x * x.detach() - y,
    "a number": lambda x, y: x * 2.5,
    "a number first": lambda x, y: 1.5 - x,
    "a whole number": lambda x, y: x * 3,
    "broadcast": lambda x, y: x * y[0],
    "turned": lambda x, y: x + y.T,
    "exp": lambda x, y: ug.exp(x),
    "gelu": lambda x, y: ug.gelu(x, approximate="tanh"),
    "clip": lambda x, y: ug.clip(x, -0.5, 0.5),
    "where": lambda x, y: ug.where(x > y, x, y),
    "sum": lambda x, y: ug.sum(x),
    "mean": lambda x, y: ug.mean(x, axis=0, keepdims=True),
    "max": lambda x, y: ug.max(x, axis=-1),
    "softmax": lambda x, y: ug.softmax(x, axis=0),
    "log_softmax": lambda x, y: ug.log_softmax(x),
    "matmul": lambda x, y: x @ y,
    "none of it": lambda x, y: x[1:].sum(),
}


def outcome(call: Callable[..., ug.Tensor], seed: int, form: Any, grad: bool, odd: bool) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    x, y = (ug.asarray(rng.standard_normal((4, 4)), dtype=form).cuda() for _ in range(2))
    if odd:  # at an address that is no multiple of 16
        x = ug.reshape(ug.concat([x.reshape(-1), x.reshape(-1)])[3:19], (4, 4))
    out = call(x.requires_grad_(grad), y.requires_grad_(grad))
    found = [out]
    if grad:
        g = ug.asarray(rng.standard_normal(out.shape), dtype=out.dtype).cuda()
        found += ug.grad(out, [x, y], g, allow_unused=True)
    return tuple(None if t is None else (t.dtype, t.shape, gpu.to_host(t.storage).tobytes()) for t in found)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_gives_the_same_however_often_it_came(name: str) -> None:
    """Unknown, seen once, learnt, remembered; with and without gradients."""
    for form, grad, odd in ((ug.float32, False, False), (ug.float32, True, False), (ug.bfloat16, True, True)):
        found = [outcome(CALLS[name], again % 2, form, grad, odd) for again in range(4)]
        assert found[:2] == found[2:]
        assert found[0] != found[1]  # values count, not only shapes


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rungs that ran since the test began: a remembered call goes past them."""
    names: list[str] = []
    make_plan = dispatch.make_plan

    def noting(op: Op, *args: Any) -> Any:
        plan = make_plan(op, *args)
        return plan._replace(run=lambda *arrays, **params: names.append(op.name) or plan.run(*arrays, **params))

    monkeypatch.setattr(dispatch, "make_plan", noting)
    for forget in registry._forgetting:
        forget()
    yield names
    monkeypatch.undo()
    for forget in registry._forgetting:
        forget()


@pytest.mark.skipif(native.missing() is not None, reason="calls are remembered by the C++ extension")
class TestRemembered:
    def test_a_remembered_call_needs_no_rung(self, asked: list[str]) -> None:
        x, y = (ug.asarray(np.arange(6.0), dtype=ug.float32).cuda() for _ in range(2))
        asked.clear()  # of the conversions
        for _ in range(5):
            assert ug.add(x, y).tolist() == [0, 2, 4, 6, 8, 10]
        assert asked == ["add", "add"]
        assert ug.add(x[1:], y[1:]).tolist() == [2, 4, 6, 8, 10]  # another shape, and alignment
        assert asked == ["add"] * 3

    def test_operands_on_one_memory_are_told_from_two(self) -> None:
        x, y = (ug.asarray(v, dtype=ug.float32).cuda() for v in ([1.0, 2.0], [10.0, 20.0]))
        for _ in range(4):
            assert ug.add(x, x.detach()).tolist() == [2, 4]
            assert ug.add(x, y).tolist() == [11, 22]

    def test_a_pin_or_a_policy_is_obeyed(self, asked: list[str]) -> None:
        x = ug.ones((4, 4), device="cuda")
        for _ in range(4):
            ug.exp(x)
        before = len(asked)
        with ug.use(exp="cuda/triton-loop"):
            ug.exp(x)
        assert len(asked) == before + 1
        with ug.autocast(ug.bfloat16):
            assert ug.softmax(x).dtype is ug.float32

    def test_the_device_of_the_operands_is_where_work_runs(self) -> None:
        if gpu.count() < 2:
            pytest.skip("there is one device")
        for _ in range(2):
            for index in (0, 1):
                x = ug.ones(3, device=f"cuda:{index}")
                for _ in range(4):
                    y = x + x
                    assert str(y.device) == f"cuda:{index}"
                    assert y.tolist() == [2, 2, 2]

    def test_memory_that_runs_out_is_the_rungs_to_see_to(self, monkeypatch: pytest.MonkeyPatch) -> None:
        if gpu.mode() != "emulated":
            pytest.skip("needs a device whose memory can be made to run out")
        from ulpgrad.kernels import emulated

        x = ug.ones(5, device="cuda")
        for _ in range(4):
            x + x
        empty, short = emulated.empty, [2]

        def scarce(*args: Any) -> Any:
            short[0] -= 1
            if short[0] >= 0:
                raise emulated.OutOfMemoryError("Out of memory allocating 20 bytes")
            return empty(*args)

        monkeypatch.setattr(emulated, "empty", scarce, raising=False)
        assert (x + x).tolist() == [2] * 5
        short[0] = 100
        with pytest.raises(ug.errors.DeviceMemoryError, match="Out of memory"):
            x + x

    def test_a_setting_that_changes_is_seen(self, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ULPGRAD_FLOAT32_MATMUL", "ieee")
        x = ug.ones((3, 5), device="cuda")  # no multiples of 16 bytes: a rung without descriptors
        y = ug.ones((5, 7), device="cuda")
        for _ in range(4):
            x @ y
        before = asked.count("matmul")
        assert before < 4
        x @ y
        assert asked.count("matmul") == before
        monkeypatch.setenv("ULPGRAD_FLOAT32_MATMUL", "tf32x3")
        x @ y
        assert asked.count("matmul") == before + 1

    def test_what_is_captured_runs_as_it_stands(self, asked: list[str]) -> None:
        """So that the graph has all of it, and keeps what it reads."""
        x = ug.asarray([1.0, 2.0], dtype=ug.float32).cuda()
        for _ in range(4):
            x * 2.0
        before = len(asked)
        graph = ug.cuda.CUDAGraph()
        with ug.cuda.graph(graph):
            y = x * 2.0
        assert len(asked) == before + 1
        x[...] = 5.0
        graph.replay()
        assert y.tolist() == [10, 10]
