"""CUDA graphs: a captured step has the bits of one that runs as it is, whatever the host counts; what it cannot hold, it says."""

from __future__ import annotations

import gc
import importlib.util
import types
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn, optim
from ulpgrad.errors import ArgumentError, CaptureError
from ulpgrad.kernels import capabilities, gpu

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)
pytestmark = pytest.mark.filterwarnings("ignore::ulpgrad.errors.HostFallbackWarning")

MAKERS: dict[str, Callable[[Any], optim.Optimizer]] = {
    "sgd": lambda ps: optim.SGD(ps, lr=0.1),
    "momentum": lambda ps: optim.SGD(ps, lr=0.1, momentum=0.9, nesterov=True),
    "adamw": lambda ps: optim.AdamW(ps, lr=0.05),
    "rmsprop": lambda ps: optim.RMSprop(ps, lr=0.01),
}
ROWS = np.random.default_rng(0).standard_normal((6, 4, 8)).astype(np.float32)
CLASSES = np.random.default_rng(1).integers(0, 3, (6, 4))


def network() -> nn.Module:
    ug.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3)).cuda()


def training(
    make: Any, scaler: ug.GradScaler | None, clip: float | None
) -> tuple[nn.Module, optim.Optimizer, Callable[..., Any]]:
    model = network()
    optimizer = make(model.parameters())

    def step(x: ug.Tensor, y: ug.Tensor) -> ug.Tensor:
        loss = ug.cross_entropy(model(x), y)
        optimizer.zero_grad()
        (loss if scaler is None else scaler.scale(loss)).backward()
        if clip is not None:
            if scaler is not None:
                scaler.unscale_(optimizer)
            optim.clip_grad_norm_(model.parameters(), clip)
        if scaler is None:
            optimizer.step()
        else:
            scaler.step(optimizer)
            scaler.update()
        return loss.detach()

    return model, optimizer, step


def states(model: nn.Module, optimizer: optim.Optimizer) -> list[Any]:
    found: list[Any] = [p.detach().numpy().tobytes() for p in model.parameters()]
    for state in optimizer.state_dict()["state"].values():
        found += [state["step"], *(v.numpy().tobytes() for v in state.values() if isinstance(v, ug.Tensor))]
    return found


def run(
    make: Any, clip: float | None, scaler: ug.GradScaler | None, captured: bool, rows: np.ndarray
) -> tuple[list[Any], list[Any]]:
    """Losses of the batches, and what training came to; the learning rate falls on the way."""
    model, optimizer, step = training(make, scaler, clip)
    call = ug.cuda.make_graphed(step) if captured else step
    losses = []
    for i, (x, y) in enumerate(zip(rows, CLASSES, strict=True)):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 / (1 + i // 2)
        losses.append(call(ug.asarray(x, device="cuda"), ug.asarray(y, device="cuda")).item())
    if captured:
        assert next(iter(call._known.values())).graph is not None
    return losses, states(model, optimizer)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("name", MAKERS)
def test_training_steps(name: str, clip: float | None) -> None:
    """Adam counts its steps and learning rates change from replay to replay, as they do without a graph."""
    assert run(MAKERS[name], clip, None, True, ROWS) == run(MAKERS[name], clip, None, False, ROWS)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_a_scaler_in_the_graph(clip: float | None) -> None:
    """Steps that are left out are not counted, and the scale moves, in a replay as elsewhere."""
    rows = ROWS.copy()
    rows[3] = 1e38  # a loss that is not finite, in the first replay
    scalers = [ug.GradScaler(init_scale=48.0, growth_interval=2) for _ in range(2)]
    found = [
        run(MAKERS["adamw"], clip, scaler, captured, rows)
        for scaler, captured in zip(scalers, (True, False), strict=True)
    ]
    assert repr(found[0]) == repr(found[1])  # NaN is not itself
    assert [s.skipped for s in scalers] == [1, 1]
    assert scalers[0].state_dict() == scalers[1].state_dict()


def test_graph_and_replay() -> None:
    """Nothing runs while it is captured; a replay reads what its operands hold then."""
    x = ug.asarray(ROWS[0], device="cuda")
    w = ug.asarray(ROWS[1].T.copy(), device="cuda")
    y = (x @ w) * 2.0 + 1.0
    g = ug.cuda.CUDAGraph()
    with pytest.raises(CaptureError, match="nothing has been captured"):
        g.replay()
    total = ug.zeros(4, device="cuda")
    with ug.cuda.graph(g):
        assert ug.cuda.is_current_stream_capturing()
        out = (x @ w) * 2.0 + 1.0
        total[...] = total + out.sum(axis=1)
    assert not ug.cuda.is_current_stream_capturing()
    assert total.tolist() == [0.0] * 4
    g.replay()
    assert out.numpy().tobytes() == y.numpy().tobytes()
    once = total.numpy()
    x[...] = x * 2.0
    g.replay()
    assert out.numpy().tobytes() == ((x @ w) * 2.0 + 1.0).numpy().tobytes()
    np.testing.assert_allclose(total.numpy(), once + out.sum(axis=1).numpy(), rtol=1e-6)
    with pytest.raises(CaptureError, match="has been captured"), ug.cuda.graph(g):
        pass
    g.reset()
    with pytest.raises(CaptureError, match="nothing"):
        g.replay()


def test_random_numbers() -> None:
    """A replay draws what the next call would have drawn, forwards and backwards, and the generator goes on from there."""
    found = []
    for captured in (True, False):
        generator, w = ug.Generator(5), nn.Parameter(ug.ones((4, 8), device="cuda"))

        def step(x: ug.Tensor, generator: ug.Generator = generator, w: nn.Parameter = w) -> ug.Tensor:
            noise = ug.randn(4, 8, generator=generator, device="cuda")
            y = ug.dropout(x * w, 0.5, generator=generator) + noise
            w.grad = None
            (y * y).sum().backward()
            return y.detach()

        call = ug.cuda.make_graphed(step) if captured else step
        for rows in ROWS[:5]:
            found.append(
                [call(ug.asarray(rows, device="cuda")).numpy().tobytes(), w.grad.numpy().tobytes(), generator.position]
            )
    assert found[:5] == found[5:]
    assert len({row[0] for row in found[:5]}) == 5


X = ROWS[0]
REFUSED: dict[str, tuple[Callable[[ug.Tensor], Any], str]] = {
    "item": (lambda x: x.sum().item(), "read by the host"),
    "numpy": (lambda x: x.numpy(), "read by the host"),
    "truth": (lambda x: 1 if (x > 0).any() else 0, "read by the host"),
    "printing": (repr, "read by the host"),
    "data": (lambda x: x + ug.asarray(X, device="cuda"), "cannot be moved"),
    "to": (lambda x: ug.asarray(X).to("cuda"), "cannot be moved"),
    "random": (lambda x: ug.rand(3) + 1.0, "drawn on the CPU"),
    "synchronize": (lambda x: ug.cuda.synchronize(), "waiting"),
    "raw": (lambda x: float(x.storage[0, 0]), "cannot be captured"),
    "nested": (lambda x: ug.cuda.graph(ug.cuda.CUDAGraph()).__enter__(), "under way"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_captured(name: str) -> None:
    """Each says what it is and what to do, and leaves things so that the next capture works."""
    use, message = REFUSED[name]
    x = ug.asarray(X, device="cuda")
    g = ug.cuda.CUDAGraph()
    with pytest.raises(CaptureError, match=message), ug.cuda.graph(g):
        use(x)
    with pytest.raises(CaptureError, match="nothing has been captured"):
        g.replay()
    doubled = x + x
    with ug.cuda.graph(g):
        again = x + x
    g.replay()
    assert again.numpy().tobytes() == doubled.numpy().tobytes()


def test_other_errors_pass_through() -> None:
    with pytest.raises(ug.errors.ShapeError), ug.cuda.graph(ug.cuda.CUDAGraph()):
        ug.ones((2, 3), device="cuda") @ ug.ones((2, 3), device="cuda")
    assert not ug.cuda.is_current_stream_capturing()


def test_an_optimizer_that_has_not_stepped_is_refused() -> None:
    """Its state would be made anew at each replay. A change of what is compiled in is told at the replay."""
    p = nn.Parameter(ug.ones(3, device="cuda"))
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = ug.ones(3, device="cuda")
    with pytest.raises(CaptureError, match="step once before"), ug.cuda.graph(ug.cuda.CUDAGraph()):
        optimizer.step()
    optimizer.step()
    g = ug.cuda.CUDAGraph()
    with ug.cuda.graph(g):
        optimizer.step()
    assert optimizer.state_dict()["state"][0]["step"] == 1, "nothing has run yet"
    g.replay()
    optimizer.param_groups[0]["nesterov"] = True
    with pytest.raises(CaptureError, match="NESTEROV"):
        g.replay()


def test_memory_is_kept_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants that a graph reads live as long as it; its results come from a pool of its own, or one that graphs share."""
    taken: list[Any] = []
    cuda = gpu.xp().cuda
    real = cuda.using_allocator
    monkeypatch.setattr(
        cuda, "using_allocator", lambda allocator: (taken.append(allocator.__self__), real(allocator))[1]
    )
    p = nn.Parameter(ug.ones(3, device="cuda"))
    p.grad = ug.ones(3, device="cuda")
    optimizer = optim.AdamW([p])
    optimizer.step()
    g, other = ug.cuda.CUDAGraph(), ug.cuda.CUDAGraph()
    with ug.cuda.graph(g):
        optimizer.step()
    with ug.cuda.graph(other, pool=g.pool()):
        p.grad + 1.0
    assert taken == [g.pool(), g.pool()]
    kept = [weakref.ref(a) for a in g._capture.arrays]
    assert len(kept) >= 2, "the table of addresses and the settings"
    gc.collect()
    assert all(ref() is not None for ref in kept)


def test_a_pool_that_runs_short_keeps_what_replays_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """CuPy's pool lets all free blocks go when the device has no memory left; a graph's results lie in such."""
    from ulpgrad.kernels import emulated

    if gpu.mode() != "emulated":
        pytest.skip("needs memory that can be watched")
    monkeypatch.setattr(emulated.cuda, "MemoryPointer", lambda memory, offset: types.SimpleNamespace(mem=memory))
    g = ug.cuda.CUDAGraph()
    block = g.pool().malloc(64)
    assert len(block.mem) == 64
    memory = weakref.ref(block.mem)
    del block
    g.pool().free_all_blocks()
    gc.collect()
    assert memory() is not None
    g.reset()
    gc.collect()
    assert memory() is None


def test_a_replay_waits_for_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another stream too: numbers of the host and a function's arguments are written where the last replay may still read."""
    cuda, told = gpu.xp().cuda, []
    if gpu.mode() != "emulated":
        pytest.skip("CuPy's classes cannot be watched")
    monkeypatch.setattr(cuda.Stream, "wait_event", lambda self, event: told.append((self, event)))
    total = ug.cuda.make_graphed(lambda x: x + x, warmup=1)
    first, second = ug.cuda.Stream(), ug.cuda.Stream()
    x = ug.asarray(X, device="cuda")
    with ug.cuda.stream(first):
        total(x)
        total(x)
    assert not told
    (known,) = total._known.values()
    last = known.graph._capture._last
    with ug.cuda.stream(second):
        assert (total(x).numpy() == 2 * X).all()
    assert told
    assert all(one == (second.stream, last) for one in told)


def test_make_graphed_knows_its_arguments() -> None:
    calls = []

    @ug.cuda.make_graphed
    def total(x: ug.Tensor) -> tuple[ug.Tensor, ug.Tensor]:
        calls.append(x.shape)
        return x + x, x.sum(axis=0)

    for shape in ((2, 3), (4, 3)):
        for i in range(5):
            x = np.full(shape, i, np.float32)
            doubled, summed = total(ug.asarray(x))  # from the host: copied before
            assert doubled.device.type == "cuda"
            assert (doubled.numpy() == 2 * i).all()
            assert (summed.numpy() == shape[0] * i).all()
    assert calls == [(2, 3)] * 3 + [(4, 3)] * 3, "two calls as they are, and one that is captured"
    if gpu.count() > 1:  # where another graph is captured: arguments of the host go there
        with ug.cuda.device(1):
            for i in range(4):
                doubled, _ = total(ug.asarray(np.full((2, 3), i, np.float32)))
                assert str(doubled.device) == "cuda:1"
                assert (doubled.numpy() == 2 * i).all()
        assert calls[6:] == [(2, 3)] * 3
    with pytest.raises(ArgumentError, match="require no gradient"):
        total(ug.ones(3, requires_grad=True))
    with pytest.raises(ArgumentError, match="at least one call"):
        ug.cuda.make_graphed(total, warmup=0)


def test_order_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream of its own that does not wait for the default one; relaxed, so that constants may be copied beside it; launched in
    the stream that is current."""
    cuda, told = gpu.xp().cuda, []
    if gpu.mode() != "emulated":
        pytest.skip("CuPy's classes cannot be watched")
    for kind, name in ((cuda.Stream, "begin_capture"), (cuda.Stream, "end_capture"), (cuda.Graph, "launch")):
        real = getattr(kind, name)
        monkeypatch.setattr(
            kind,
            name,
            lambda self, *a, real=real, name=name, **k: (told.append((name, self, k)), real(self, *a, **k))[1],
        )
    made = []
    real_init = cuda.Stream.__init__
    monkeypatch.setattr(cuda.Stream, "__init__", lambda self, *a, **k: (made.append(k), real_init(self, *a, **k))[1])
    x = ug.asarray(X, device="cuda")
    g, side = ug.cuda.CUDAGraph(), ug.cuda.Stream()
    with ug.cuda.graph(g):
        y = x + x
    with ug.cuda.stream(side):
        g.replay()
    assert y.shape == x.shape
    (begin, stream, mode), (end, ended, _), (launch, _, where) = told
    assert (begin, end, launch) == ("begin_capture", "end_capture", "launch")
    assert stream is ended is not side.stream
    assert mode == {"mode": cuda.runtime.streamCaptureModeRelaxed}
    assert where == {"stream": side.stream}
    assert all(k == {"non_blocking": True} for k in made)


@pytest.mark.skipif(importlib.util.find_spec("cupy") is None, reason="CuPy is not installed")
def test_cupy_has_what_is_used() -> None:
    import cupy

    for name in ("begin_capture", "end_capture", "is_capturing"):
        assert hasattr(cupy.cuda.Stream, name)
    assert hasattr(cupy.cuda.Graph, "launch")
    assert hasattr(cupy.cuda.MemoryPool, "malloc")
    assert callable(cupy.cuda.Memory)
    assert callable(cupy.cuda.MemoryPointer)
    assert callable(cupy.cuda.using_allocator)
    assert cupy.cuda.runtime.streamCaptureModeRelaxed == gpu.xp().cuda.runtime.streamCaptureModeRelaxed
