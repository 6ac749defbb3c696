"""The product of matrices in blocks: every rung of the CPU against the definition, and tensors in blocks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import FormatError, ShapeError
from ulpgrad.formats import as_format
from ulpgrad.kernels import registry
from ulpgrad.kernels.blocks import spec

sys.path.insert(0, str(Path(__file__).parent))
from test_kernels import check

SAMPLES = [pytest.param(sample, id=sample.name) for sample in spec.block_matmul.samples()]


def formats_of(arrays: Any) -> Any:
    return tuple(as_format(a.dtype) for a in arrays)


@pytest.mark.parametrize("rung", [r.name for r in registry.ladder(spec.block_matmul)])
@pytest.mark.parametrize("sample", SAMPLES)
def test_rungs(sample: Any, rung: str) -> None:
    """As they lie, and transposed in memory."""
    for order in ("C", "F"):
        arrays = tuple(np.asarray(a, order=order) for a in sample.arrays)
        formats, params = formats_of(arrays), dict(sample.params)
        with dispatch.use(block_matmul=rung):
            check(spec.block_matmul, arrays, formats, params,
                  lambda *a, f=formats, **p: dispatch.call(spec.block_matmul, f, a, p)[0])  # fmt: skip


def test_what_does_not_fit_is_told() -> None:
    codes, scales = np.zeros((4, 64), np.uint8), np.zeros((4, 2), np.uint8)
    form, small = as_format("mxfp8_e4m3"), ug.Block(as_format("float8_e4m3fn"), 16)
    arrays = (codes, scales, codes.T, scales.T)
    how: dict[str, Any] = {"a_format": form, "b_format": form}
    with pytest.raises(ShapeError, match=r"scales of b have shape \(4, 2\): expected \(2, 4\)"):
        spec.block_matmul.check(codes, scales, codes.T, scales, **how)  # type: ignore[misc]
    with pytest.raises(FormatError, match="blocks of 32 times blocks of 16: expected one size"):
        spec.block_matmul.check(*arrays, **how | {"b_format": small})  # type: ignore[misc]
    with pytest.raises(FormatError, match="expected one of float32, bfloat16, float16"):
        spec.block_matmul.check(*arrays, **how, dtype=as_format("float64"))  # type: ignore[misc]


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxfp8_e5m2", "mxfp4_e2m1"])
def test_tensors(name: str) -> None:
    """Products of tensors whose blocks lie along the summed axis are those of their values; others are decoded."""
    rng = np.random.default_rng(0)
    a, b, w = (ug.asarray(rng.standard_normal(s).astype(np.float32)) for s in ((3, 5, 70), (70, 9), (11, 70)))
    bias = ug.asarray(rng.standard_normal(11).astype(np.float32))
    x, along, across, weight = a.to(name), b.to(name, axis=0), b.to(name), w.to(name)
    wide = [t.to("float64").numpy() for t in (x, along, across, weight)]
    np.testing.assert_allclose(ug.matmul(x, along).numpy(), wide[0] @ wide[1], rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(ug.matmul(x, across).numpy(), wide[0] @ wide[2], rtol=1e-5, atol=1e-4)
    y = wide[0] @ wide[3].T + bias.numpy()
    np.testing.assert_allclose(ug.linear(x, weight, bias).numpy(), y, rtol=1e-5, atol=1e-4)
    found = ug.linear(x, weight, bias, "relu", scale=0.5, dtype="bfloat16")
    assert found.dtype is ug.bfloat16
    wanted = np.maximum((y - bias.numpy()) * 0.5 + bias.numpy(), 0)
    np.testing.assert_allclose(found.to("float32").numpy(), wanted, rtol=2**-6, atol=0.1)
    names = [call[0].name for call in dispatch.calls_of(lambda: (ug.matmul(x, along), ug.linear(x, weight, bias)))]
    assert names.count("block_matmul") == 2
    assert "block_matmul" not in [call[0].name for call in dispatch.calls_of(lambda: ug.matmul(x, across))]


def test_gradients_are_those_of_the_values() -> None:
    rng = np.random.default_rng(1)
    a, b = (ug.asarray(rng.standard_normal(s).astype(np.float32)).requires_grad_() for s in ((5, 64), (64, 9)))
    ug.matmul(a.to("mxfp8_e4m3"), b.to("mxfp8_e4m3", axis=0)).sum().backward()
    wanted = b.detach().to("mxfp8_e4m3", axis=0).to("float32").numpy().sum(axis=1)
    np.testing.assert_allclose(a.grad.numpy(), np.broadcast_to(wanted, (5, 64)), rtol=1e-5)
