"""Products of ordinary integer tensors, which wrap, against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.kernels import native

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64])
@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_words_wrap_across_blocks(dtype: Any, isa: str) -> None:
    """Few rows and many, whole panels and parts of them, more steps than a block has, strides, and stacks that broadcast."""
    if isa not in native.module().cpu_isas():
        pytest.skip(f"no {isa} here")
    rng, info = np.random.default_rng(0), np.iinfo(dtype)

    def drawn(*shape: int) -> Any:
        return rng.integers(info.min, info.max, shape, dtype, endpoint=True)

    for m, k, n in ((1, 600, 64), (1, 30, 131), (12, 513, 128), (13, 20, 64), (100, 70, 65), (7, 0, 5), (0, 3, 4)):
        a, b = drawn(m, k), drawn(k, n)
        expected = a @ b
        assert (native.module().words_matmul(a, b, isa) == expected).all(), (m, k, n)
        turned = native.module().words_matmul(np.asfortranarray(a), np.asfortranarray(b), isa)
        back = native.module().words_matmul(a[::-1, ::-1], b[::-1, ::-1], isa)
        assert turned.dtype == dtype
        assert (turned == expected).all(), (m, k, n)
        assert (back == expected[::-1, ::-1]).all(), (m, k, n)
    a, b = drawn(3, 1, 5, 9), drawn(4, 9, 6)
    assert (native.module().words_matmul(a, b, isa) == a @ b).all()


def test_integer_tensors_take_the_fast_road() -> None:
    for dtype in (ug.int8, ug.uint16, ug.int32, ug.uint64):
        x = ug.ones((70, 80), dtype=dtype) * 37
        assert ug.explain("matmul", x, x.T).taken == "cpu/native-integer"
        assert ((x @ x.T).numpy() == (x.numpy() @ x.numpy().T)).all()
