"""The product of matrices in blocks on a GPU: every rung against the definition, operands that lie any way, and tensors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.formats import as_format, bfloat16, float32
from ulpgrad.kernels import capabilities, gpu, registry
from ulpgrad.kernels.blocks import spec
from ulpgrad.kernels.registry import Request

sys.path.insert(0, str(Path(__file__).parents[1]))
from test_kernels import check

if capabilities.missing("triton") is not None:
    pytest.skip("Triton is not installed", allow_module_level=True)

RUNGS = [r for r in registry.ladder(spec.block_matmul, "cuda") if r.name != "cuda/triton-scaled"]
OP = spec.block_matmul


def formats_of(arrays: Any) -> Any:
    return tuple(as_format(a.dtype) for a in arrays)


def run(rung: Any, arrays: Any, params: dict[str, Any], turned: bool = False) -> Any:
    """By a rung on the device; turned, with operands that lie along columns. "refused" where it takes no such call."""
    xp = gpu.xp()
    given = [xp.asarray(np.ascontiguousarray(a.swapaxes(-1, -2) if turned else a)) for a in arrays]
    given = [a.swapaxes(-1, -2) for a in given] if turned else given
    if rung.refusal(Request(OP, "cuda", formats_of(arrays), tuple(given), params)):
        return "refused"
    with dispatch.use(block_matmul=rung.name):
        return gpu.to_host(dispatch.call(OP, formats_of(arrays), tuple(given), params)[0])


@pytest.mark.parametrize("rung", RUNGS, ids=lambda r: r.name)
def test_rungs(rung: Any) -> None:
    taken = 0
    for sample in OP.samples():
        for turned in (False, True):
            params = dict(sample.params)
            for dtype in dict.fromkeys((params.get("dtype", float32), float32, bfloat16)):
                params["dtype"] = dtype
                found = run(rung, sample.arrays, params, turned)
                if isinstance(found, str):
                    continue
                taken += 1
                try:
                    check(OP, sample.arrays, formats_of(sample.arrays), params, lambda *a, y=found, **p: y)
                except AssertionError as error:
                    raise AssertionError(f"{rung.name}, {sample.name}, turned {turned}, {dtype}: {error}") from None
                if sample.arrays[0].size > 1 << 14:
                    break
    assert taken > 4


def test_sums_of_blocks_are_exact_to_float32() -> None:
    """Where every sum is one of float32, whatever their order: the reference's bits."""
    rng = np.random.default_rng(0)
    form = as_format("mxfp8_e4m3")
    a, b = (form.encode(rng.integers(-3, 4, s) * 2.0 ** rng.integers(-2, 3, (s[0], s[1])), axis=axis)
            for s, axis in (((20, 96), -1), ((96, 17), -2)))  # fmt: skip
    arrays = (a.codes, a.scales, b.codes, b.scales)
    params: dict[str, Any] = {"a_format": form, "b_format": form, "dtype": float32}
    found = run(next(r for r in RUNGS if r.name == "cuda/triton-blocks"), arrays, params)
    np.testing.assert_array_equal(found, OP.reference(*arrays, **params).astype(np.float32))


def test_units_that_take_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel for sm_100 in the interpreter; on a device that has such units."""
    from ulpgrad.kernels.matmul import triton_configs as configs

    if gpu.mode() == "emulated":
        interpreter = pytest.importorskip("triton.runtime.interpreter")
        if not hasattr(interpreter, "_dot_scaled_scale_to_f32"):
            pytest.skip("this Triton's interpreter has no dot_scaled")
        monkeypatch.setattr(gpu, "capability", lambda: 100)
        monkeypatch.setattr(configs, "choose", lambda *_: configs.Config(32, 32, 64, 4, 2))
    elif gpu.capability() < 100:
        pytest.skip("needs sm_100")
    rung = next(r for r in registry.ladder(OP, "cuda") if r.name == "cuda/triton-scaled")
    taken = 0
    for sample in OP.samples():
        params = dict(sample.params)
        found = run(rung, sample.arrays, params)
        if not isinstance(found, str) and "NaN" not in sample.name:
            taken += 1
            check(OP, sample.arrays, formats_of(sample.arrays), params, lambda *a, y=found, **p: y)
    assert taken > 4


def choice(m: int, n: int, dtype: Any, form: str = "mxfp8_e4m3") -> str:
    arrays = tuple(gpu.xp().zeros(s, np.uint8) for s in ((m, 64), (m, 2), (64, n), (2, n)))
    block = as_format(form)
    request = Request(OP, "cuda", formats_of(arrays), arrays, {"a_format": block, "b_format": block, "dtype": dtype})
    return registry.select(request)[0].name


def test_choice() -> None:
    if gpu.capability() != 90:
        pytest.skip("the choice on sm_90")
    assert choice(16, 512, float32) == "cuda/triton-blocks"
    assert choice(512, 512, float32) == "cuda/triton-unpacked"
    assert choice(512, 512, bfloat16) == "cuda/triton-blocks-float8"
    assert choice(16, 16, float32, "mxfp4_e2m1") == "cuda/triton-unpacked"


def test_tensors() -> None:
    rng = np.random.default_rng(0)
    x, w = (ug.asarray(rng.standard_normal(s).astype(np.float32)).to("mxfp8_e4m3") for s in ((3, 5, 70), (11, 70)))
    wide = x.to("float64").numpy() @ w.to("float64").numpy().T
    for dtype, close in ((None, 1e-5), ("bfloat16", 2**-7)):
        y = ug.linear(x.to("cuda"), w.to("cuda"), dtype=dtype)
        assert y.device.type == "cuda"
        np.testing.assert_allclose(y.to("float32").numpy(), wide, rtol=close, atol=10 * close)


def _random(seed: int, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp4_e2m1", "mxint8"])
def test_gradients_of_tensors(name: str) -> None:
    """Products that are recorded are made of codes as well, with the gradients of the values."""
    arrays = _random(1, (2, 5, 70), (70, 9), (11, 70), (11,))

    def run(device: str) -> list[Any]:
        a, b, w, bias = (ug.asarray(v, device=device).requires_grad_() for v in arrays)
        y = (
            ug.matmul(a.to(name), b.to(name, axis=0)).sum()
            + (ug.linear(a.to(name), w.to(name), bias, "relu") ** 2).sum()
        )
        y.backward()
        return [y, a.grad, b.grad, w.grad, bias.grad]

    expected, found = run("cpu"), []
    calls = dispatch.calls_of(lambda: found.extend(run("cuda")))
    assert [call[0].name for call in calls].count("block_matmul") == 2
    for z, y in zip(found, expected, strict=True):
        assert z.device.type == "cuda"
        np.testing.assert_allclose(z.detach().numpy(), y.detach().numpy(), rtol=2e-5, atol=2e-3)


@pytest.mark.parametrize("gradient", ["mxfp8_e5m2", None, "mxfp6_e3m2"])
def test_policies(gradient: str | None) -> None:
    """Under a policy of blocks the three products of a layer are made of codes; without blocks in one operand, of values."""
    arrays = _random(2, (3, 4, 70), (9, 70), (9,), (3, 9, 5))

    def run(device: str) -> list[Any]:
        x, w, bias, other = (ug.asarray(v, device=device).requires_grad_() for v in arrays)
        with ug.policy.Policy(weight="mxfp8_e4m3", activation="mxfp8_e4m3", gradient=gradient):
            y = ug.matmul(ug.linear(x, w, bias), other)
        y.backward(ug.asarray(np.cos(np.arange(60, dtype=np.float32)).reshape(3, 4, 5), device=device))
        return [y, x.grad, w.grad, bias.grad, other.grad]

    expected, found = run("cpu"), []
    calls = [call[0].name for call in dispatch.calls_of(lambda: found.extend(run("cuda")))]
    assert calls.count("block_matmul") == (2 if gradient is None else 6)
    for z, y in zip(found, expected, strict=True):
        assert z.device.type == "cuda"
        wanted = y.detach().numpy()
        np.testing.assert_allclose(z.detach().numpy(), wanted, rtol=1e-5, atol=1e-5 * np.abs(wanted).max())
