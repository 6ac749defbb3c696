"""Devices: moving tensors between them, indices and operands on the wrong one, memory that runs out, interchange."""

from __future__ import annotations

import copy
import pickle
import sys
import warnings
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug

sys.path.insert(0, str(Path(__file__).parent))
from test_tensors import IMAGE, POSITIVE, A, close

from ulpgrad import dispatch, ops
from ulpgrad.errors import (
    ArgumentError,
    AxisError,
    DeviceError,
    DeviceMemoryError,
    GradientError,
    HostFallbackWarning,
    KernelError,
    ShapeError,
)
from ulpgrad.kernels import gpu, registry

pytestmark = pytest.mark.filterwarnings("ignore::ulpgrad.errors.HostFallbackWarning")


def test_moving() -> None:
    """There and back, both ways of the gradient, formats on the way."""
    x = ug.asarray(A, requires_grad=True)
    y = x.cuda()
    assert y.device.type == "cuda"
    assert x.cpu() is x
    assert y.cuda() is y
    assert y.to("cuda:0", copy=True) is not y
    (y.to("cuda", ug.bfloat16) * 2).cpu().sum().backward()
    assert x.grad is not None
    assert x.grad.device.type == "cpu"
    assert (x.grad.numpy() == 2).all()
    with pytest.raises(ArgumentError, match="no device"):
        x.to(ug.float16, ug.float32)
    pinned = ug.cuda.pin_memory(x.detach())
    assert ug.cuda.is_pinned(pinned)
    assert not ug.cuda.is_pinned(x)
    assert (pinned.to("cuda", non_blocking=True).numpy() == A).all()


def test_pinned_memory_outlives_its_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool would give it to the next that asks, who writes there before the device has read it."""
    if gpu.mode() != "emulated":
        pytest.skip("needs an event whose end can be chosen")
    from ulpgrad.kernels import emulated

    gpu.hold(None)  # what earlier copies held is let go
    ended = False
    monkeypatch.setattr(emulated.Event, "done", property(lambda _: ended))
    pinned = ug.cuda.pin_memory(ug.asarray(A))
    memory = weakref.ref(pinned.storage)
    moved = pinned.to("cuda", non_blocking=True)
    del pinned
    gpu.hold(None)
    assert memory() is not None
    ended = True
    gpu.hold(None)
    assert memory() is None
    assert (moved.numpy() == A).all()


def test_copies_from_pinned_memory_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whatever way they go, but for the one that is told to go on: the caller may write there next."""
    if gpu.mode() != "emulated":
        pytest.skip("CuPy's classes cannot be watched")
    waits: list[int] = []
    monkeypatch.setattr(gpu.xp().cuda.Stream, "synchronize", lambda _: waits.append(ug.cuda.current_device()))
    pinned, there = ug.cuda.pin_memory(ug.asarray(A)), ug.zeros(A.shape, device="cuda", dtype=ug.asarray(A).dtype)
    ug.asarray(A, device="cuda")
    pinned.to("cuda", non_blocking=True)
    assert not waits
    for copy_there in (lambda: pinned.to("cuda:1"), lambda: ug.asarray(pinned, device="cuda:1")):
        waits.clear()
        copy_there()
        assert waits == [1]
    rows = ug.cuda.pin_memory(ug.asarray([1, 0]))
    waits.clear()
    there[rows]
    assert waits == [0]


def test_streams_and_events_of_another_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event belongs to its stream's device, and a default stream, which has the handle 0 everywhere, to the current one."""
    cuda, places = gpu.xp().cuda, []
    if gpu.mode() != "emulated":
        pytest.skip("CuPy's classes cannot be watched")

    def watch(kind: Any, name: str) -> None:
        real = getattr(kind, name)
        monkeypatch.setattr(
            kind, name, lambda self, *a, **k: (places.append((name, cuda.runtime.getDevice())), real(self, *a, **k))[1]
        )

    watch(cuda.Event, "__init__")
    watch(cuda.Event, "record")
    watch(cuda.Stream, "wait_event")
    watch(cuda.Stream, "synchronize")
    here, there = ug.cuda.current_stream(0), ug.cuda.current_stream(1)
    assert ug.cuda.current_device() == 0
    here.wait_stream(there)
    assert places == [("__init__", 1), ("record", 1), ("wait_event", 0)]
    there.synchronize()
    assert places[-1] == ("synchronize", 1)
    event = ug.cuda.Event(enable_timing=True)
    assert event.query()
    event.synchronize()  # what was never recorded is done
    there.wait_event(event)
    with pytest.raises(ArgumentError, match="recorded"):
        event.elapsed_time(event)
    assert places[-1] == ("synchronize", 1)
    event.record(there)
    there.wait_event(event)
    assert places[-3:] == [("__init__", 1), ("record", 1), ("wait_event", 1)]
    assert ug.cuda.current_device() == 0


def test_host_values() -> None:
    """numpy, item, tolist, printing and truth copy to the host."""
    x = ug.asarray([[1.5, -2.0]], dtype=ug.bfloat16, device="cuda")
    assert x.tolist() == [[1.5, -2.0]]
    assert x[0, 1].item() == float(x[0, 1]) == -2.0
    assert bool(x[0, 0] > 0)
    assert repr(x) == "tensor([[ 1.5, -2. ]], bfloat16, device='cuda:0')"
    assert str(x.numpy().dtype) == "bfloat16"
    assert 1.5 in x
    assert list(map(len, x)) == [2]


def test_copies_of_objects() -> None:
    """deepcopy stays on its device, and so does what is pickled."""
    for x in (ug.asarray(A, device="cuda", requires_grad=True), ug.nn.Parameter(ug.asarray(A, device="cuda"))):
        (x * 3).sum().backward()
        for y in (copy.deepcopy(x), pickle.loads(pickle.dumps(x))):
            assert type(y) is type(x)
            assert y.device == x.device
            assert y.requires_grad
            assert y.grad.device == x.device
            assert (y.numpy() if not y.requires_grad else y.detach().numpy()).tolist() == A.tolist()
            assert not gpu.xp().may_share_memory(y.storage, x.storage)
    gone = pickle.dumps(ug.asarray(A, device="cuda")).replace(b"cuda:0", b"cuda:9")
    with pytest.raises(DeviceError, match="only"):
        pickle.loads(gone)


def test_interchange() -> None:
    """Arrays of the GPU's library come and go without a copy."""
    xp = gpu.xp()
    array = xp.asarray(A)
    x = ug.asarray(array)
    assert x.device.type == "cuda"
    assert x.storage.data.ptr == array.data.ptr
    interface = x.__cuda_array_interface__
    assert interface["data"][0] == array.data.ptr
    assert interface["shape"] == (3, 4)
    assert not hasattr(ug.asarray(A), "__cuda_array_interface__")
    with pytest.raises(GradientError, match="detach"):
        ug.asarray(array).requires_grad_().__cuda_array_interface__  # noqa: B018
    with pytest.raises(ArgumentError, match="without a copy"):
        ug.asarray(array, device="cpu", copy=False)
    if gpu.mode() == "":  # DLPack has no name for the emulated device
        assert x.__dlpack_device__()[0] == 2
        assert xp.from_dlpack(x).data.ptr == ug.from_dlpack(array).storage.data.ptr == array.data.ptr


def test_writing() -> None:
    """x[index] = value in place, through views, by every kind of index."""
    here, there = ug.asarray(A, copy=True), ug.asarray(A, device="cuda", copy=True)
    for x in (here, there):
        x[0] = 7
        x[1:, ::2] = ug.asarray([1.0, 2.0], device=x.device)
        x[:, [1, 3]] = 0.25
        x[x > 5] = -1.0
        x[ug.asarray([2, 1], device=x.device), 0] = ug.asarray(9)
        x.T[3] = ug.asarray([1, 2, 3], device=x.device)
    close(there, here, True)
    with pytest.raises(DeviceError, match="setitem"):
        there[0] = ug.asarray(A[0])
    with pytest.raises(ArgumentError, match="read-only"):
        ug.broadcast_to(there, (2, 3, 4))[0] = 1.0
    with pytest.raises(ShapeError, match="does not fit"):
        there[0] = ug.ones(3, device="cuda")
    saved = ug.ones(3, device="cuda", requires_grad=True)
    y = saved * there[0, :3]
    there[0, 0] = 5.0
    with pytest.raises(GradientError, match="written to"):
        y.sum().backward()


@pytest.mark.parametrize("index", [[0, 3], -4, np.array([[0, -4]]), (0, [4])])
def test_outside(index: Any) -> None:
    """A GPU would wrap such positions around; here they are refused as on the CPU."""
    for device in ("cpu", "cuda"):
        with pytest.raises(AxisError, match="out of bounds"):
            ug.asarray(A, device=device)[index]


def test_mixed_devices() -> None:
    """Operands on different devices are refused, single values of the host are taken."""
    x, y = ug.asarray(A), ug.asarray(A, device="cuda")
    for run in (lambda: x + y, lambda: y @ x.T, lambda: ug.concat([x, y]), lambda: y[0, 0].requires_grad_().backward(x[0, 0]),
                lambda: x[ug.asarray([0], device="cuda")]):  # fmt: skip
        with pytest.raises(DeviceError, match=r"device|\.to"):
            run()
    scale = ug.asarray(2.0, requires_grad=True)
    ((scale * 3) * y).sum().backward()
    assert scale.grad is not None
    assert scale.grad.device.type == "cpu"
    np.testing.assert_allclose(scale.grad.item(), 3 * A.sum(), rtol=1e-5)


def test_hooks_and_second_derivatives() -> None:
    x = ug.asarray(POSITIVE, device="cuda", requires_grad=True)
    y = x * x * x
    y.retain_grad()
    seen = []
    y.register_hook(lambda g: seen.append(g.device.type))
    (first,) = ug.grad(y.sum(), [x], create_graph=True)
    (second,) = ug.grad(first.sum(), [x], retain_graph=True)
    np.testing.assert_allclose(second.numpy(), 6 * POSITIVE, rtol=1e-5)
    y.sum().backward()
    assert y.grad.device == x.grad.device == x.device
    assert set(seen) == {"cuda"}


def test_gradcheck() -> None:
    """First and second gradients against differences, on the device."""
    x, y = (ug.asarray(v, dtype=ug.float64, device="cuda").requires_grad_() for v in (POSITIVE[:1, :2], A[:2, :1]))
    assert ug.testing.gradcheck(lambda a, b: (ug.tanh(a) @ b)[[0, 0]] * a[:, 1:], [x, y], order=2)


def test_remembered_calls() -> None:
    """What was learnt from calls on the CPU is not used on a GPU, nor the other way round."""
    here, there = ug.asarray(A), ug.asarray(A, device="cuda")
    for x in (here, here, here, there, there, here, there):
        made = (
            x * x,
            ug.softmax(x),
            x.reshape(-1),
            x[1:],
            ug.zeros_like(x),
            ug.zeros((2,), device=x.device),
            x.sum(),
            x + 1,
        )
        assert {t.device for t in made} == {x.device}


def test_own_function() -> None:
    """A Function on a GPU gets zeros of that device for outputs that were not used."""

    class Both(ug.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2, x * 3

        @staticmethod
        def backward(ctx: Any, g: Any, h: Any) -> Any:
            assert g.device.type == h.device.type == "cuda"
            return g * 2 + h * 3

    x = ug.ones((2,), device="cuda", requires_grad=True)
    Both.apply(x)[0].sum().backward()
    assert x.grad.tolist() == [2.0, 2.0]


def test_running_statistics() -> None:
    """Batch norm's statistics move as on the CPU, to the last but a few bits."""
    layers = [ug.nn.BatchNorm2d(3), ug.nn.BatchNorm2d(3).to("cuda")]
    results = [layer(ug.asarray(IMAGE, device=d)) for layer, d in zip(layers, ("cpu", "cuda"), strict=True)]
    close(results[1].cpu(), results[0], False)
    for name, value in layers[1].state_dict().items():
        assert value.device.type == "cuda"
        close(value.cpu(), layers[0].state_dict()[name], False)
    for layer in layers:
        layer.eval()
    close(layers[1](ug.asarray(IMAGE, device="cuda")), layers[0](ug.asarray(IMAGE)), False)


def test_where_work_runs() -> None:
    """Work runs on the device of its operands, whatever the current one is."""
    if gpu.count() < 2:
        pytest.skip("there is one device")
    x = ug.asarray(A, device="cuda:1", requires_grad=True)
    z = ug.concat([x[:, 1:].T.reshape(3, 3) @ ug.ones((3, 2), device="cuda:1"), x[:, :2] * 2.0])
    assert str(z.device) == "cuda:1"
    assert ug.cuda.current_device() == 0
    z.sum().backward()
    assert str(x.grad.device) == "cuda:1"
    with pytest.raises(DeviceError, match="different devices"):
        x + ug.asarray(A, device="cuda:0")
    with ug.cuda.device(1):
        assert ug.cuda.current_device() == 1
        assert str(ug.asarray([1.0]).cuda().device) == "cuda:1"
    assert ug.cuda.current_device() == 0


def test_fallback_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a GPU has no arithmetic for runs on the CPU with a warning, or not at all where that is forbidden."""
    x = ug.asarray(A, device="cuda").to(ug.Q(20, 11))  # of which exponentials are made of Python's integers
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        y = ug.exp(x)
    assert y.device.type == "cuda"
    assert any(issubclass(w.category, HostFallbackWarning) for w in seen)
    monkeypatch.setenv("ULPGRAD_HOST_FALLBACK", "0")
    with pytest.raises(KernelError, match="ULPGRAD_HOST_FALLBACK"):
        ug.exp(x)


def test_fallback_is_seen_in_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the plan of the call is known."""
    op, codes = registry.find("integer_adaptive_avg_pool2d"), gpu.to_device(np.ones((1, 2, 6, 6), np.int8))
    assert not registry.ladder(op, "cuda")
    sample = next(iter(op.samples()))

    def call() -> Any:
        return dispatch.call(op, (ug.int8,), (codes,), {**sample.params, "output_size": (2, 2)})

    for _ in range(3):
        with pytest.warns(HostFallbackWarning):
            call()
    monkeypatch.setenv("ULPGRAD_HOST_FALLBACK", "0")
    with pytest.raises(KernelError, match="ULPGRAD_HOST_FALLBACK"):
        call()


def test_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool is emptied once and the call tried again; then the error says how much there is."""
    if gpu.mode() != "emulated":
        pytest.skip("needs a device whose memory can be made to run out")
    from ulpgrad.kernels import emulated

    tried: list[int] = []

    def empty(*_: Any) -> Any:
        tried.append(len(tried))
        if fail or len(tried) == 1:
            raise emulated.OutOfMemoryError("Out of memory allocating 64 bytes")
        return emulated.ndarray(np.empty(16, np.float32))

    monkeypatch.setattr(emulated, "empty", empty, raising=False)
    fail = False
    assert ug.empty(16, device="cuda").shape == (16,)
    assert tried == [0, 1]
    fail = True
    with pytest.raises(DeviceMemoryError, match=r"cuda:0: Out of memory allocating 64 bytes; .* free"):
        ug.empty(16, device="cuda")
    assert issubclass(DeviceMemoryError, MemoryError)


def test_namespace() -> None:
    devices = ug.__array_namespace_info__().devices()
    assert [str(d) for d in devices] == ["cpu", *(f"cuda:{i}" for i in range(ug.cuda.device_count()))]
    assert ops.to_device(ug.asarray(A), devices[1]).device == devices[1]


def test_constants_of_the_host_belong_to_the_stream_that_copies_them() -> None:
    """Another stream would read them without waiting for the copy."""
    from ulpgrad.kernels.quantize import triton_round

    form = ug.as_format("float8_e4m3fn")
    here = triton_round.values_on_device(form)
    assert triton_round.values_on_device(form) is here
    with gpu.xp().cuda.Stream(non_blocking=True):
        there = triton_round.values_on_device(form)
        assert triton_round.values_on_device(form) is there
        assert there is not here
        np.testing.assert_array_equal(gpu.to_host(there), gpu.to_host(here))
    assert triton_round.values_on_device(form) is here
    three = np.asarray(3.0)
    for index in range(gpu.count()):  # numbers in expressions; of another device than the current one by its own stream
        number = dispatch.constant(three, index)
        assert dispatch.constant(three, index) is number
        assert number.device.id == index
        with gpu.on_device(index), gpu.xp().cuda.Stream(non_blocking=True):
            assert dispatch.constant(three, index) is not number
