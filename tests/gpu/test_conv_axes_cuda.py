"""Convolution along one and three axes, transposed, and pooling to a size, on the CUDA C++ kernels of images; volumes beyond the
registry's samples: layouts, slices at the rims, what is not finite, bits that repeat."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import HostFallbackWarning
from ulpgrad.formats import Format, bfloat16, float32, float64
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv.geometry import output_size
from ulpgrad.kernels.conv3d import cuda_slices, spec

Triple = tuple[int, int, int]
RNG = np.random.default_rng(0)
REACH: dict[str, tuple[Any, list[tuple[int, ...]], set[str]]] = {
    "conv1d": (lambda x, w, b: ug.conv1d(x, w, b, 2, 1), [(2, 8, 9), (8, 8, 3), (8,)], {"conv2d"}),
    "conv3d": (lambda x, w, b: ug.conv3d(x, w, b, 1, 1), [(1, 8, 3, 4, 5), (8, 8, 3, 3, 3), (8,)], {"conv3d"}),
    "conv_transpose1d": (lambda x, w, b: ug.conv_transpose1d(x, w, b, 2), [(2, 8, 5), (8, 8, 3), (8,)], {"conv2d"}),
    "conv_transpose2d": (lambda x, w, b: ug.conv_transpose2d(x, w, b, 2, 1), [(2, 8, 4, 3), (8, 8, 3, 3), (8,)], {"conv2d"}),
    "conv_transpose3d": (lambda x, w, b: ug.conv_transpose3d(x, w, b, 2), [(1, 8, 2, 3, 2), (8, 8, 3, 2, 2), (8,)], {"conv3d"}),
    "adaptive_avg_pool2d": (lambda x: ug.adaptive_avg_pool2d(x, (3, 2)), [(2, 8, 7, 5)], {"adaptive_avg_pool2d"}),
}  # fmt: skip


FAMILIES = ("conv", "conv3d", "adaptive_pool")


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", REACH)
def test_cuda_kernels_take_them_forwards_and_backwards(name: str, form: str) -> None:
    call, shapes, ops = REACH[name]
    arrays = [RNG.integers(-8, 9, shape) / np.float32(8) for shape in shapes]
    found = []
    for device in ("cpu", "cuda"):
        given = [ug.asarray(a, dtype=form).to(device).requires_grad_() for a in arrays]
        with warnings.catch_warnings(), ug.profile() as seen:
            warnings.simplefilter("error", HostFallbackWarning)
            y = call(*given)
            results = (y, *ug.grad((y * y).sum(), given))
        found.append([r.detach().to("cpu").to("float64").numpy() for r in results])
    taken = {(c.op.name, c.rung.name) for c in seen.calls if c.op.family in FAMILIES}
    assert {op.removesuffix("_gradient").removesuffix("_input").removesuffix("_weight") for op, _ in taken} == ops
    assert all(kernel.startswith("cuda/cuda-") for _, kernel in taken), taken
    bound = 1e-5 if form == "float32" else 2e-2
    for on_cpu, on_gpu in zip(*found, strict=True):
        assert np.abs(on_cpu - on_gpu).max() <= bound * np.abs(on_cpu).max()


#         x                   weight           stride     padding    dilation   groups
VOLUMES: list[tuple[tuple[int, ...], tuple[int, ...], Triple, Triple, Triple, int]] = [
    ((2, 16, 6, 5, 4), (24, 16, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1),
    ((1, 16, 7, 6, 5), (32, 8, 3, 2, 3), (2, 1, 2), (2, 0, 1), (2, 1, 1), 2),
    ((2, 8, 9, 4, 4), (8, 8, 2, 3, 1), (4, 1, 1), (1, 1, 0), (3, 1, 1), 1),
    ((2, 8, 4, 5, 6), (16, 8, 1, 1, 1), (1, 1, 1), (0, 0, 0), (1, 1, 1), 1),
    ((1, 8, 2, 4, 4), (8, 8, 5, 3, 3), (1, 1, 1), (4, 1, 1), (1, 1, 1), 1),
]
OPS = (spec.conv3d, spec.conv3d_input_gradient, spec.conv3d_weight_gradient)


def problem(op: Any, x: Any, weight: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    random = np.random.default_rng(1)
    params = {"stride": stride, "padding": padding, "dilation": dilation}
    positions = output_size(x[2:], weight[2:], **params)
    params["groups"] = groups
    volumes, filters, g = (random.integers(-8, 9, shape) / 8 for shape in (x, weight, (x[0], weight[0], *positions)))
    if op is spec.conv3d:
        return (volumes, filters, random.integers(-8, 9, weight[0]) / 8), params
    if op is spec.conv3d_input_gradient:
        return (g, filters), {**params, "size": x[2:]}
    return (g, volumes), {**params, "size": weight[2:]}


def last(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.transpose(0, 2, 3, 4, 1)).transpose(0, 4, 1, 2, 3)


def run(op: Any, form: Format, arrays: Any, params: Any, is_last: bool = False) -> Any:
    """On the device, by the rung on slices; operands of five axes lie channels last where asked for."""
    given = []
    for a in arrays:
        codes = np.asarray(form.encode(a))
        if is_last and codes.ndim == 5:
            given.append(gpu.xp().asarray(last(codes).transpose(0, 2, 3, 4, 1)).transpose(0, 4, 1, 2, 3))
        else:
            given.append(gpu.xp().asarray(codes))
    with dispatch.use(**{op.name: "cuda/cuda-slices"}):
        return dispatch.make_plan(op, "cuda:0", (form,) * len(given), tuple(given), params).run(*given, **params)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("volume", VOLUMES)
def test_volumes_in_both_layouts(op: Any, volume: Any) -> None:
    arrays, params = problem(op, *volume)
    want = op.reference(*arrays, **params)
    for form, unit in ((float64, 2.0**-53), (float32, 2.0**-24), (bfloat16, 2.0**-8)):
        first, other = (run(op, form, arrays, params, is_last) for is_last in (False, True))
        again = run(op, form, arrays, params)
        found = [form.exact(gpu.to_host(a)) for a in (first, other, again)]
        # Rounded once: sums of small eighths are exact in float32.
        assert (np.abs(found[0] - want) <= unit * np.abs(want)).all(), (
            f"{form}: off by up to {np.abs(found[0] - want).max()}"
        )
        assert found[0].tobytes() == found[1].tobytes() == found[2].tobytes()
        assert first.flags.c_contiguous
        if op is not spec.conv3d_weight_gradient:
            assert other.transpose(0, 2, 3, 4, 1).flags.c_contiguous


def test_slices_at_the_rims_have_taps_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[int, ...]] = []
    real = cuda_slices.best_on

    def noting(device: str, name: str, form: Any, *arrays: Any, **params: Any) -> Any:
        made.append((name, *(a.shape[:2] for a in arrays)))
        return real(device, name, form, *arrays, **params)

    monkeypatch.setattr(cuda_slices, "best_on", noting)
    op = spec.conv3d_input_gradient
    run(op, float32, *problem(op, (2, 4, 6, 3, 3), (8, 4, 3, 3, 3), (1, 1, 1), (1, 1, 1), (1, 1, 1), 1))
    assert made == [(op.name.replace("3d", "2d"), g, filters) for g, filters in (
        ((2, 16), (16, 4)), ((8, 24), (24, 4)), ((2, 16), (16, 4)))]  # fmt: skip


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_weights_that_are_not_finite_meet_no_padding_in_the_gradient(bad: float) -> None:
    op = spec.conv3d_input_gradient
    for stride in (1, 2):
        (g, weight), params = problem(op, (1, 3, 5, 4, 4), (2, 3, 3, 3, 3), (stride, 1, 1), (1, 1, 1), (1, 1, 1), 1)
        weight[0, 1, 0, 0, 0] = weight[1, 2, 2, 1, 2] = bad
        with np.errstate(invalid="ignore"):
            want = op.reference(g, weight, **params)
        found = gpu.to_host(run(op, float64, (g, weight), params))
        np.testing.assert_array_equal(np.isfinite(found), np.isfinite(want))
        np.testing.assert_allclose(found, want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_empty_batches(op: Any) -> None:
    arrays, params = problem(op, (0, 3, 4, 4, 4), (2, 3, 3, 3, 3), (2, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    found = gpu.to_host(run(op, float32, arrays, params))
    np.testing.assert_array_equal(found, op.reference(*arrays, **params))


def test_second_gradients_of_volumes() -> None:
    found = []
    for device in ("cpu", "cuda"):
        random = np.random.default_rng(2)
        x, w = (
            ug.asarray(random.normal(size=s)).to(device).requires_grad_() for s in ((1, 2, 3, 4, 3), (3, 2, 2, 2, 3))
        )
        y = ug.conv3d(x, w, None, (2, 1, 1), (1, 0, 1))
        gx, gw = ug.grad((y * y).sum(), (x, w), create_graph=True)
        found.append([t.to("cpu").numpy() for t in ug.grad((gx * gx).sum() + (gw * gw).sum(), (x, w))])
    for on_cpu, on_gpu in zip(*found, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=1e-10, atol=1e-10)


def test_volumes_in_a_graph() -> None:
    """What is copied side by side is copied anew at each replay."""
    random = np.random.default_rng(3)
    w = ug.asarray(random.normal(size=(8, 8, 3, 3, 3)).astype("f4")).to("cuda").requires_grad_()

    def step(x: ug.Tensor) -> ug.Tensor:
        x = x.detach().requires_grad_()
        y = ug.conv3d(x, w, None, (2, 1, 1), 1)
        return sum((g.sum() for g in ug.grad((y * y).sum(), (x, w))), y.sum())

    graphed = ug.cuda.make_graphed(step)
    for _ in range(5):
        x = ug.asarray(random.normal(size=(1, 8, 5, 4, 4)).astype("f4")).to("cuda")
        assert float(graphed(x).item()) == float(step(x).item())
