"""What goes by index on a GPU: sums in the CPU's order, bit for bit, and indices that are nowhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, AxisError
from ulpgrad.formats import as_format
from ulpgrad.kernels import capabilities, gpu
from ulpgrad.kernels.embedding import spec as embedding_spec
from ulpgrad.kernels.gather import spec as gather_spec
from ulpgrad.kernels.spec import Op

if capabilities.missing("triton") is not None:
    pytest.skip("Triton is not installed", allow_module_level=True)


def on_gpu(op: Op, *arrays: np.ndarray, **params: Any) -> Any:
    kinds = tuple(as_format(a.dtype) for a in arrays)
    given = tuple(map(gpu.to_device, arrays))
    plan = dispatch.make_plan(op, "cuda:0", kinds, given, params)
    assert plan.rung.name.startswith("cuda/triton"), plan.rung
    return gpu.to_host(plan.run(*given, **params))


def test_sums_are_those_of_one_loop() -> None:
    """Where one index comes many times, the order of additions shows in the last bits."""
    rng = np.random.default_rng(0)
    g = (rng.standard_normal((300, 5)) * 2.0 ** rng.integers(-9, 9, (300, 5))).astype(np.float32)
    rows = rng.integers(0, 4, 300)
    wanted, other = np.zeros((4, 5), np.float32), np.zeros((4, 5), np.float32)
    for i, row in enumerate(rows):
        wanted[row] += g[i]
    for i in reversed(range(300)):
        other[rows[i]] += g[i]
    assert not np.array_equal(wanted, other)  # the values tell orders apart
    assert np.array_equal(on_gpu(embedding_spec.embedding_gradient, g, rows, rows=4), wanted)
    along = np.ascontiguousarray(np.broadcast_to(rows[:, None], g.shape))
    assert np.array_equal(on_gpu(gather_spec.scatter_add, g, along, axis=0, size=4), wanted)


@pytest.mark.parametrize("wrong", [4, -5, 2**40])
def test_indices_that_are_nowhere_raise(wrong: int) -> None:
    """With the CPU's error, when a result is read."""
    x, index = np.ones((4, 3), np.float32), np.array([0, wrong, 1])
    with pytest.raises(ArgumentError, match=rf"index {wrong} is not a row"):
        on_gpu(embedding_spec.embedding, x, index)
    with pytest.raises(ArgumentError, match=rf"index {wrong} is not a row"):
        on_gpu(embedding_spec.embedding_gradient, x[:3], index, rows=4)
    with pytest.raises(AxisError, match=rf"index {wrong} is out of bounds"):
        on_gpu(gather_spec.take_along_axis, x[:, 0].copy(), index, axis=0)
    with pytest.raises(AxisError, match=rf"index {wrong} is out of bounds"):
        on_gpu(gather_spec.scatter_add, np.ones(3, np.float32), index, axis=0, size=4)


def test_the_largest_uint64_is_no_index_from_the_end() -> None:
    x, index = np.ones(4, np.float32), np.array([2**64 - 1], np.uint64)
    with pytest.raises(AxisError):
        on_gpu(gather_spec.take_along_axis, x, index, axis=0)
    with pytest.raises(AxisError):
        on_gpu(gather_spec.scatter_add, x[:1].copy(), index, axis=0, size=4)


def embedded(index: list[int]) -> tuple[ug.Tensor, ug.Tensor]:
    weight = ug.nn.Parameter(ug.ones((4, 3), device="cuda"))
    return weight, ug.embedding(ug.asarray(index, device="cuda"), weight)


@pytest.mark.parametrize("how", ["item", "synchronize", "stream", "event"])
def test_the_host_hears_of_it_when_it_waits(how: str) -> None:
    """The call does not raise; what waits does, once, and what was asked after it is answered anew."""
    embedded([0, 4])
    event = ug.cuda.Event()
    event.record()
    waits = {"item": ug.ones((), device="cuda").item, "synchronize": ug.cuda.synchronize,
             "stream": ug.cuda.current_stream().synchronize, "event": event.synchronize}  # fmt: skip
    with pytest.raises(ArgumentError, match="embedding: index 4 is not a row"):
        waits[how]()
    waits[how]()
    assert embedded([0, 3])[1].tolist() == [[1.0] * 3] * 2


def test_backward_and_steps_look_without_waiting() -> None:
    weight, y = embedded([0, 4])
    gpu.xp().cuda.runtime.deviceSynchronize()  # the device is done, and nobody has looked
    with pytest.raises(ArgumentError, match="index 4"):
        y.sum().backward()
    optimizer = ug.optim.SGD([weight], lr=0.1)
    embedded([-1])
    gpu.xp().cuda.runtime.deviceSynchronize()
    with pytest.raises(ArgumentError, match="index -1"):
        optimizer.step()


def test_positions_of_an_index_are_asked_for_too() -> None:
    x, index = ug.ones((4, 3), device="cuda"), ug.asarray([1, 4], device="cuda")
    y = x[index]
    with pytest.raises(AxisError, match=r"index 4 is out of bounds for axis 0 with size 4"):
        y.tolist()
    with pytest.raises(AxisError, match="index 4"):
        x[index] = 0.0
    assert x.sum().item() == 12.0, "nothing was written"


def test_indices_that_were_written_to_since() -> None:
    weight, index = ug.ones((4, 3), device="cuda"), ug.asarray([0, 4], device="cuda")
    ug.embedding(index, weight)
    index[...] = 0
    with pytest.raises(ArgumentError, match="embedding: an index was out of range"):
        ug.cuda.synchronize()


def test_in_a_graph() -> None:
    """What one replay finds is not lost in the next; the graph goes on when it has been told."""
    weight = ug.nn.Parameter(ug.ones((4, 3), device="cuda"))
    index = ug.asarray([0, 1], device="cuda")
    ug.embedding(index, weight).sum().backward()
    g = ug.cuda.CUDAGraph()
    with ug.cuda.graph(g):
        weight.grad = None
        y = ug.embedding(index, weight)
        y.sum().backward()
    g.replay()
    assert weight.grad.tolist() == [[1.0] * 3] * 2 + [[0.0] * 3] * 2
    index[0] = 7
    g.replay()
    kept, gpu.state.questions = gpu.state.questions, []  # as if the device had not been done yet
    index[0] = 2
    g.replay()
    assert gpu.state.questions == kept
    with pytest.raises(ArgumentError, match="embedding"):
        ug.cuda.synchronize()
    g.replay()
    ug.cuda.synchronize()
    assert weight.grad.tolist() == [[0.0] * 3, [1.0] * 3, [1.0] * 3, [0.0] * 3]
