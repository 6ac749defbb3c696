"""Blocks as torchao makes them, where it is installed (it brings torch, which nothing else here needs)."""

from __future__ import annotations

import numpy as np
import pytest

import ulpgrad as ug

torch = pytest.importorskip("torch", reason="torch is a peer, installed by hand: pip install '.[peers]' torchao")
pytest.importorskip("torchao", reason="torchao is a peer, installed by hand")

RULES = {"": "FLOOR", "_rceil": "RCEIL", "_even": "EVEN"}
ELEMENTS = {"mxfp8_e4m3": "float8_e4m3fn", "mxfp8_e5m2": "float8_e5m2"}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ELEMENTS)
def test_codes_and_scales_as_torchao(name: str, rule: str) -> None:
    from torchao.prototype.mx_formats.config import ScaleCalculationMode
    from torchao.prototype.mx_formats.mx_tensor import to_mx

    rng = np.random.default_rng(0)
    x = (rng.standard_normal((500, 64)) * 2.0 ** rng.integers(-60, 60, (500, 1))).astype(np.float32)
    scales, codes = to_mx(torch.from_numpy(x), getattr(torch, ELEMENTS[name]), 32, ScaleCalculationMode[RULES[rule]])
    ours = ug.asarray(x).to(name + rule).storage
    assert (scales.view(torch.uint8).numpy().reshape(ours.scales.shape) == ours.scales).all()
    assert (codes.view(torch.uint8).numpy().reshape(ours.codes.shape) == ours.codes).all()
