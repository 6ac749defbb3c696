"""Images whose channels lie side by side: convolution and pooling in Triton give the same values, in that layout again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ulpgrad import dispatch
from ulpgrad.formats import float32
from ulpgrad.kernels import capabilities, gpu, registry

if capabilities.missing("triton") is not None:
    pytest.skip(str(capabilities.missing("triton")), allow_module_level=True)

RNG = np.random.default_rng(5)
X, WEIGHT = RNG.standard_normal((2, 6, 9, 7)).astype("f4"), RNG.standard_normal((8, 6, 3, 3)).astype("f4")
GEOMETRY: dict[str, Any] = {"stride": (2, 1), "padding": (1, 1), "dilation": (1, 1)}
WINDOWS: dict[str, Any] = {"kernel_size": (3, 2), "stride": (2, 2), "padding": (1, 1)}
CASES = [
    ("conv2d", "patches", (X, WEIGHT, None), {**GEOMETRY, "groups": 1, "activation": "relu"}),
    ("conv2d", "patches", (X, WEIGHT[:, :3], None), {**GEOMETRY, "groups": 2}),
    ("conv2d_input_gradient", "patches", (X, WEIGHT[:6, :5]), {**GEOMETRY, "size": (17, 7), "groups": 1}),
    ("conv2d_max_pool", "patches", (X, WEIGHT, None), {**GEOMETRY, "window": (2, 2)}),
    ("max_pool2d", "windows", (X,), {**WINDOWS, "dilation": (1, 1)}),
    ("avg_pool2d", "windows", (X,), {**WINDOWS, "count_include_pad": False}),
    ("avg_pool2d_gradient", "windows", (X,), {**WINDOWS, "size": (17, 13), "count_include_pad": True}),
]


@pytest.mark.parametrize(("name", "idea", "arrays", "params"), CASES, ids=[c[0] for c in CASES])
def test_layout_stays(name: str, idea: str, arrays: Any, params: dict[str, Any]) -> None:
    found = []
    for order in ((0, 1, 2, 3), (0, 2, 3, 1)):
        first = gpu.xp().asarray(np.ascontiguousarray(arrays[0].transpose(order))).transpose(np.argsort(order).tolist())
        given = (first, *(None if a is None else gpu.xp().asarray(np.ascontiguousarray(a)) for a in arrays[1:]))
        with dispatch.use(**{name: f"cuda/triton-{idea}"}):
            formats = tuple(None if a is None else float32 for a in arrays)
            result = dispatch.call(registry.find(name), formats, given, params)[0]
        found.append(result if isinstance(result, tuple) else (result,))
    for plain, last in zip(*found, strict=True):
        assert plain.flags.c_contiguous
        assert last.transpose((0, 2, 3, 1)).flags.c_contiguous
        np.testing.assert_allclose(gpu.to_host(plain), gpu.to_host(last), rtol=1e-5, atol=1e-5)
