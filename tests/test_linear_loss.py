"""Linear and cross entropy by chunks of rows, against the two functions one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch
from ulpgrad.errors import ArgumentError, FormatError, ShapeError

TARGET = np.random.default_rng(1).integers(0, 11, (2, 5))
TARGET[0, 1] = 3


def operands(form: str, bias: bool = True) -> list[Any]:
    rng = np.random.default_rng(0)
    made = [ug.asarray(rng.standard_normal(shape), dtype=form) for shape in ((2, 5, 8), (11, 8), (11,))]
    for t in made:
        t.requires_grad = True
    return made if bias else [*made[:2], None]


def plain(x: Any, weight: Any, bias: Any, target: Any, **options: Any) -> Any:
    losses = ug.cross_entropy(ug.linear(x.reshape((-1, 8)), weight, bias), target.reshape((-1,)), **options)
    return losses.reshape(target.shape) if options["reduction"] == "none" else losses


def exact(t: Any) -> np.ndarray:
    return t.detach().to("float64").numpy()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("form", ["float32", "float64", "bfloat16"])
def test_against_the_plain_composition(form: str, bias: bool, reduction: str) -> None:
    eps = {"float32": 1e-6, "float64": 1e-14, "bfloat16": 3e-2}[form]
    options = {"ignore_index": 3, "label_smoothing": 0.1, "reduction": reduction}
    found, wanted = operands(form, bias), operands(form, bias)
    target = ug.asarray(TARGET)
    one = ug.linear_cross_entropy(*found, target, chunk=3, **options)
    two = plain(*wanted, target, **options)
    assert one.dtype is two.dtype
    assert one.shape == two.shape
    np.testing.assert_allclose(exact(one), exact(two), rtol=eps, atol=eps)
    one.sum().backward()
    two.sum().backward()
    for a, b in zip(found, wanted, strict=True):
        if a is not None:
            assert a.grad.dtype is b.grad.dtype
            a, b = exact(a.grad), exact(b.grad)
            np.testing.assert_allclose(a, b, rtol=eps, atol=eps * max(np.abs(b).max(), 1))


def test_no_call_sees_more_rows_than_a_chunk() -> None:
    x, weight, bias = operands("float32")

    def run() -> None:
        ug.linear_cross_entropy(x, weight, bias, ug.asarray(TARGET), chunk=4).backward()

    logits = [a.shape for _, _, arrays, _ in dispatch.calls_of(run) for a in arrays
              if a is not None and a.ndim == 2 and a.shape[1] == 11]  # fmt: skip
    assert logits
    assert max(rows for rows, _ in logits if rows != 8) <= 4


def test_second_gradients() -> None:
    def penalty(loss: Any, x: Any, weight: Any) -> Any:
        parts = ug.grad(loss, [x, weight], create_graph=True)
        return sum((p * p).sum() for p in parts)

    found, wanted = operands("float64"), operands("float64")
    target = ug.asarray(TARGET)
    penalty(ug.linear_cross_entropy(*found, target, chunk=4), *found[:2]).backward()
    penalty(plain(*wanted, target, reduction="mean"), *wanted[:2]).backward()
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-11, atol=1e-14)


def test_only_what_asks_gets_a_gradient() -> None:
    x, weight, bias = operands("float32")
    weight.requires_grad = False
    ug.linear_cross_entropy(x, weight, bias, ug.asarray(TARGET), chunk=4).backward()
    assert x.grad is not None
    assert bias.grad is not None
    assert weight.grad is None


def test_no_rows_and_default_chunk() -> None:
    x, weight, bias = operands("float32")
    none = ug.linear_cross_entropy(x[:0], weight, bias, ug.asarray(TARGET[:0]), reduction="sum")
    none.backward()
    assert none.item() == 0
    assert not weight.grad.numpy().any()


def test_autocast_is_the_plain_composition() -> None:
    found, wanted = operands("float32"), operands("float32")
    target = ug.asarray(TARGET)
    with ug.autocast("bfloat16"):
        one, two = ug.linear_cross_entropy(*found, target, chunk=3), plain(*wanted, target, reduction="mean")
    assert one.item() == two.item()
    one.backward()
    two.backward()
    np.testing.assert_array_equal(found[1].grad.numpy(), wanted[1].grad.numpy())


def test_errors() -> None:
    x, weight, bias = operands("float32")
    with pytest.raises(ShapeError, match=r"target has shape \(2,\), x \(2, 5, 8\)"):
        ug.linear_cross_entropy(x, weight, bias, ug.asarray([1, 2]))
    with pytest.raises(FormatError, match="expected integers"):
        ug.linear_cross_entropy(x, weight, bias, ug.zeros((2, 5)))
    with pytest.raises(ArgumentError, match="chunk=0: expected a number of rows of at least 1"):
        ug.linear_cross_entropy(x, weight, bias, ug.asarray(TARGET), chunk=0)
