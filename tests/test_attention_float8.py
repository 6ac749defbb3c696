"""Attention of 8-bit floats and its options, on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, FormatError, ShapeError


def made(form: str) -> list[ug.Tensor]:
    return [ug.randn(2, 3, 20, 8, generator=ug.Generator(i)).to(form) for i in range(3)]


def test_one_rounding() -> None:
    """The result in a wider format is that of the values in float32; nothing is rounded to 8 bits in between."""
    q, k, v = made("float8_e4m3fn")
    wide = ug.scaled_dot_product_attention(q.to("float32"), k.to("float32") * 0.5, v.to("float32") * 3.0)
    found = ug.scaled_dot_product_attention(q, k, v, dtype="float32", descale=(1, 0.5, 3))
    np.testing.assert_allclose(found.numpy(), wide.numpy(), rtol=1e-5, atol=1e-6)
    calls = dispatch.calls_of(lambda: ug.scaled_dot_product_attention(q, k, v, dtype="bfloat16"))
    assert calls[0][0].name == "attention_float8"
    assert ug.scaled_dot_product_attention(q, k, v).dtype is ug.float8_e4m3fn


def test_gradients_go_through_the_wider_format() -> None:
    q, k, v = (t.requires_grad_() for t in made("float8_e5m2"))
    ug.scaled_dot_product_attention(q, k, v, dtype="float32", descale=(2, 1, 0.5)).sum().backward()
    wide = [t.detach().to("float32").requires_grad_() for t in (q, k, v)]
    (ug.scaled_dot_product_attention(wide[0] * 2.0, wide[1], wide[2]) * 0.5).sum().backward()
    for narrow, other in zip((q, k, v), wide, strict=True):
        assert narrow.grad is not None
        assert other.grad is not None
        np.testing.assert_allclose(narrow.grad.to("float32").numpy(), other.grad.numpy(), rtol=0.2, atol=0.02)


def test_what_is_asked_for_is_checked() -> None:
    q, k, v = made("float8_e4m3fn")
    with pytest.raises(ArgumentError, match="expected three numbers, or tensors"):
        ug.scaled_dot_product_attention(q, k, v, dtype="float32", descale=(1, 2))
    with pytest.raises(ShapeError, match=r"descale of k has shape \(3, 2\): expected \(2, 3\)|do not broadcast"):
        ug.scaled_dot_product_attention(q, k, v, dtype="float32", descale=(1, ug.ones((3, 2)), 1))
    with pytest.raises(FormatError, match="descale of v is int64"):
        ug.scaled_dot_product_attention(q, k, v, dtype="float32", descale=(1, 1, ug.ones((2, 3), dtype="int64")))
    with pytest.raises(FormatError, match="expected one of float32, bfloat16, float16"):
        ug.scaled_dot_product_attention(q, k, v, descale=(1, 2, 3))
