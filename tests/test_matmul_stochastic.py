"""Products whose results are rounded by random words: the bits of the product in float32 and of `quantize` behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import ArgumentError, FormatError

SHAPES = [
    ((5, 7), (7, 12)),
    ((3, 5, 7), (7, 9)),
    ((2, 1, 4, 6), (3, 6, 5)),
    ((7,), (7, 9)),
    ((5, 7), (7,)),
    ((7,), (7,)),
]


def made(form: str, *shapes: tuple[int, ...]) -> list[ug.Tensor]:
    return [ug.randn(*s, generator=ug.Generator(i)).to(form) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("to", ["bfloat16", "float16", "float8_e4m3fn", "e5m6"])
@pytest.mark.parametrize("form", ["float32", "bfloat16", "float8_e5m2", "float64"])
def test_matmul(form: str, to: str) -> None:
    for shapes in SHAPES:
        a, b = made(form, *shapes)
        generators = ug.Generator(9), ug.Generator(9)
        wide = "float64" if form == "float64" else "float32"
        for bits in (24, 5):  # the second call takes the next words
            found = ug.matmul(a, b, dtype=to, rounding="stochastic", generator=generators[0], random_bits=bits)
            product = ug.matmul(a.to(wide), b.to(wide)).to("float32")
            wanted = ug.quantize(product, to, rounding="stochastic", generator=generators[1], random_bits=bits)
            assert found.dtype is wanted.dtype
            assert found.storage.tobytes() == wanted.storage.tobytes()


@pytest.mark.parametrize("activation", [None, "gelu"])
@pytest.mark.parametrize("form", ["float32", "float16"])
def test_linear(form: str, activation: str | None) -> None:
    x, weight, bias, scale, residual = made(form, (2, 3, 20), (14, 20), (14,), (14,), (2, 3, 14))
    for how in ({}, {"scale": 0.3}, {"scale": scale, "residual": residual}):
        finish: dict[str, Any] = {"activation": activation, **how}
        found = ug.linear(x, weight, bias, dtype="bfloat16", rounding="stochastic", generator=ug.Generator(9), **finish)
        wide = {name: t.to("float32") if isinstance(t, ug.Tensor) else t for name, t in finish.items()}
        y = ug.linear(*(t.to("float32") for t in (x, weight, bias)), **wide)
        wanted = ug.quantize(y, "bfloat16", rounding="stochastic", generator=ug.Generator(9))
        assert found.storage.tobytes() == wanted.storage.tobytes()


def test_gradients_pass_straight_through() -> None:
    results = []
    for rounded in (True, False):
        x, weight, bias, scale, residual = (
            t.requires_grad_() for t in made("float32", (6, 20), (14, 20), (14,), (14,), (6, 14))
        )
        how = {"dtype": "bfloat16", "rounding": "stochastic"} if rounded else {}
        y = ug.linear(x, weight, bias, scale=scale, residual=residual, **how)  # type: ignore[arg-type]
        y = ug.matmul(y.to("float32"), weight, **how)  # type: ignore[arg-type]
        y.to("float32").sum().backward()
        results.append([t.grad.numpy() for t in (x, weight, bias, scale, residual)])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=0.1, atol=0.15)


def test_the_mean_is_right() -> None:
    """Of many roundings of one value between two of the target's."""
    a, b = ug.full((1, 1), 1 + 2**-9), ug.ones((1, 20000))
    found = ug.matmul(a, b, dtype="bfloat16", rounding="stochastic", generator=ug.Generator(1)).to("float64").numpy()
    assert set(np.unique(found)) == {1.0, 1 + 2**-7}
    assert abs(found.mean() - (1 + 2**-9)) < 4 * 2**-7 * (0.25 * 0.75 / 20000) ** 0.5


def test_what_is_asked_for_is_checked() -> None:
    a = ug.ones((2, 2))
    with pytest.raises(ArgumentError, match="rounding='stochastic' wants dtype="):
        ug.matmul(a, a, rounding="stochastic")
    with pytest.raises(ArgumentError, match="expected 'nearest_even' or 'stochastic'"):
        ug.linear(a, a, dtype="bfloat16", rounding="up")
    with pytest.raises(ArgumentError, match=r"goes with rounding='stochastic'; convert the result with .to\(\)"):
        ug.matmul(a, a, dtype="bfloat16")
    with pytest.raises(FormatError, match="expected a float of at most 16 bits that has NaN"):
        ug.matmul(a, a, dtype="float4_e2m1fn", rounding="stochastic")
