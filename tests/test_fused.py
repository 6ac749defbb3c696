"""Functions that `fused` makes one op of: what they give and their gradients are those of the ops one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.dispatch import calls_of
from ulpgrad.errors import ArgumentError, GradientError, ShapeError
from ulpgrad.kernels import native
from ulpgrad.testing import gradcheck

CHAINS: dict[str, tuple[Callable[..., Any], int]] = {
    "gate": (lambda x, y: ug.tanh(x) * ug.sigmoid(y) + 0.5 * x, 2),
    "polynomial": (lambda x: ((2.0 * x - 1.0) * x + 3.0) * x, 1),
    "same": (lambda x: x, 1),
    "constant": (lambda x: x * 0.0 + 1.5, 1),
    "repeated operand": (lambda x, y: x * x * y + y, 2),
    "choice": (lambda x, y: ug.where(x > y, ug.exp(-x * x), y / 3.0), 2),
    "logic": (lambda x, y: ug.where(ug.logical_and(x > y, y > 0.0), x, y), 2),
    "activations": (lambda x: ug.gelu(x) + ug.silu(x) - ug.leaky_relu(x, 0.2) + ug.gelu(x, approximate="tanh"), 1),
    "clipped": (lambda x, y: ug.clip(x, -0.5, 0.7) + ug.clip(y, None, 0.1) * ug.maximum(x, y), 2),
    "waves": (lambda x, y: ug.sin(x) * ug.cos(y) + ug.atan2(x, y), 2),
    "roots": (lambda x, y: ug.sqrt(ug.abs(x) + 0.1) / (ug.log1p(y * y) + 1.0), 2),
    "steps": (lambda x: ug.floor(x) + x, 1),
    "three": (lambda x, y, z: (x + y) * (y + z) * (z + x), 3),
}
SHAPES = {1: [((3, 4),), ((),), ((0, 2),), ((5000,),)],
          2: [((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)), ((2, 3), ()), ((40, 500), (500,))],
          3: [((3, 4), (4,), (3, 1)), ((700,), (700,), (1,))]}  # fmt: skip


def normal(*shapes: tuple[int, ...], dtype: Any = ug.float32, seed: int = 0) -> list[ug.Tensor]:
    rng = np.random.default_rng(seed)
    return [ug.asarray(rng.standard_normal(s), dtype=dtype).requires_grad_() for s in shapes]


def values(t: ug.Tensor | None) -> np.ndarray:
    assert t is not None
    return t.detach().to(ug.float64).numpy()


@pytest.mark.parametrize("dtype", [ug.float32, ug.float64], ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_results_and_gradients_are_those_of_the_ops(name: str, dtype: Any) -> None:
    function, operands = CHAINS[name]
    whole = ug.fused(function)
    for shapes in SHAPES[operands]:
        ours, theirs = normal(*shapes, dtype=dtype), normal(*shapes, dtype=dtype)
        assert whole.refusal(*ours) is None
        y, expected = whole(*ours), function(*theirs)
        assert y.shape == expected.shape
        assert y.dtype is expected.dtype
        near = {"rtol": 1e-5, "atol": 1e-6} if dtype is ug.float32 else {"rtol": 1e-13, "atol": 1e-14}
        np.testing.assert_allclose(values(y), values(expected), **near)
        g = ug.asarray(np.random.default_rng(1).standard_normal(y.shape), dtype=dtype)
        y.backward(g)
        expected.backward(g)
        for a, b in zip(ours, theirs, strict=True):
            if b.grad is None:
                assert a.grad is None
            else:
                np.testing.assert_allclose(values(a.grad), values(b.grad), rtol=1e-4, atol=1e-4)


def test_it_is_one_call_forward_and_one_backward() -> None:
    whole = ug.fused(CHAINS["gate"][0])
    x, y = normal((3, 4), (3, 4))
    whole(x, y)
    forward = calls_of(lambda: whole(x, y))
    assert [op.name for op, *_ in forward] == ["fused"]
    z = whole(x, y)
    z.backward(ug.ones((3, 4)))
    z = whole(x, y)
    assert [op.name for op, *_ in calls_of(lambda: z.backward(ug.ones((3, 4))))] == ["fused", "add", "add"]


def test_only_wanted_gradients_are_computed() -> None:
    whole = ug.fused(lambda x, y: x * ug.exp(y))
    (x,) = normal((5,))
    y = ug.ones((5,))
    heard = calls_of(lambda: whole(x, y).sum().backward())
    chain = next(params["chain"] for op, _, _, params in heard if op.name == "fused" and "gradient" in repr(params))
    assert len(chain.results) == 1
    assert y.grad is None


@pytest.mark.parametrize("dtype", [ug.bfloat16, ug.float16, ug.float8_e4m3fn], ids=str)
def test_narrow_formats_round_once(dtype: Any) -> None:
    function = CHAINS["polynomial"][0]
    (x,) = normal((1000,), dtype=dtype)
    expected = dtype.encode(function(x.detach().to(ug.float64)).numpy())
    assert (ug.fused(function)(x).storage == expected).mean() > 0.99
    ug.fused(function)(x).sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is dtype


def test_formats_promote() -> None:
    whole = ug.fused(lambda x, y: x * y + x)
    x, y = normal((4,))[0], normal((4,), dtype=ug.float64, seed=1)[0]
    z = whole(x, y)
    assert z.dtype is ug.float64
    z.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype is ug.float32


def test_numbers_and_texts_are_part_of_the_chain() -> None:
    @ug.fused
    def scaled(x: Any, scale: float, kind: str = "tanh", *, shift: float = 0.0) -> Any:
        """Its document."""
        return (ug.tanh(x) if kind == "tanh" else ug.exp(x)) * scale + shift

    (x,) = normal((6,))
    for scale, kind, shift in ((2.0, "tanh", 0.0), (3.0, "tanh", 1.0), (2.0, "exp", -0.0), (2, "exp", 0.0)):
        np.testing.assert_allclose(
            values(scaled(x, scale, kind, shift=shift)), values(scaled.function(x, scale, kind, shift=shift)), rtol=1e-6
        )
    assert scaled.__doc__ == "Its document."


def test_arrays_are_taken() -> None:
    assert values(ug.fused(lambda x, y: x + y * 2.0)(np.ones(3), ug.ones(3, dtype=ug.float64))).tolist() == [3.0] * 3


def test_second_derivatives() -> None:
    whole = ug.fused(lambda x, y: ug.tanh(x) * y * x)
    gradcheck(whole, normal((3,), (3,), dtype=ug.float64), order=2)


def test_retained_and_freed_graphs() -> None:
    x, y = normal((4,), (4,))
    z = ug.fused(CHAINS["gate"][0])(x, y).sum()
    z.backward(retain_graph=True)
    z.backward()
    with pytest.raises(GradientError, match="freed"):
        z.backward()


def test_writes_in_place_are_noticed() -> None:
    x, y = normal((4,), (4,))
    z = ug.fused(CHAINS["gate"][0])(x, y)
    with ug.no_grad():
        x[0] = 1.0
    with pytest.raises(GradientError, match="written to"):
        z.sum().backward()


outside = ug.ones((3,))

REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "sum is no elementwise op": (lambda x: x / ug.sum(x), "sum is no elementwise op"),
    "a tensor from outside": (lambda x: x * outside, "neither an argument"),
    "shapes": (lambda x: x * float(x.shape[0]), "shapes or values"),
    "values": (lambda x: x * float(sum(x.detach().reshape((-1,)).tolist())), "shapes or values"),
    "a choice by value": (lambda x: x if x.sum() > 0 else -x, "sum is no elementwise op"),
    "two results": (lambda x: (x, x), "gives tuple"),
    "another format": (lambda x: x > 0.0, "its result is bool"),
    "another shape": (lambda x: x.reshape((-1,)) * 1.0, "neither an argument"),
    "an error": (lambda x: x[1, 1, 1, 1, 1], "cannot be run"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_chain_runs_op_by_op(name: str) -> None:
    function, reason = REFUSED[name]
    whole = ug.fused(function)
    (x,) = normal((3,))
    assert reason in str(whole.refusal(x))
    with pytest.raises(ArgumentError, match="is not fused"):
        whole.explain(x)
    if name != "an error":
        y, expected = whole(x), function(x)
        for a, b in zip(*((v if isinstance(v, tuple) else (v,)) for v in (y, expected)), strict=True):
            assert (a.detach().numpy() == b.detach().numpy()).all()


def test_a_parameter_from_outside_keeps_its_gradient() -> None:
    scale = ug.asarray(2.0).requires_grad_()
    whole = ug.fused(lambda x: x * scale)
    whole(ug.ones((3,))).sum().backward()
    assert "requires a gradient" in str(whole.refusal(ug.ones((3,))))
    assert scale.grad is not None
    assert scale.grad.item() == 3.0


def test_an_operand_that_is_not_used_decides_no_shape() -> None:
    whole = ug.fused(lambda x, y: x * 2.0)
    x, y = normal((3, 1), (1, 4))
    assert "all of its operands" in str(whole.refusal(x, y))
    assert whole(x, y).shape == (3, 1)


def test_a_write_to_an_argument_is_not_fused() -> None:
    def writes(x: ug.Tensor) -> ug.Tensor:
        with ug.no_grad():
            x[...] = 1.0
        return x + 1.0

    assert "in place" in str(ug.fused(writes).refusal(ug.zeros((3,))))


def test_integers_run_op_by_op() -> None:
    whole = ug.fused(lambda x: x * 2 + 1)
    assert whole(ug.arange(3)).tolist() == [1, 3, 5]
    assert whole(ug.asarray([1.0, 2.0], dtype="q3.12")).tolist() == [3.0, 5.0]


def test_policies_see_the_ops() -> None:
    whole = ug.fused(lambda x, y: ug.exp(x) * y)
    x, y = normal((4,), (4,))
    with ug.autocast(ug.bfloat16):
        assert whole(x, y).dtype is whole.function(x, y).dtype


def test_shapes_that_do_not_broadcast_are_named() -> None:
    with pytest.raises(ShapeError, match=r"\(3,\) and \(4,\)"):
        ug.fused(lambda x, y: x + y)(ug.ones((3,)), ug.ones((4,)))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    whole, before = ug.fused(CHAINS["gate"][0]), ug.get_num_threads()
    x, y = normal((100_003,), (100_003,))
    found = set()
    try:
        for threads in (1, 2, 3):
            ug.set_num_threads(threads)
            x.grad = y.grad = None
            z = whole(x, y)
            z.backward(ug.ones((100_003,)))
            found.add(tuple(values(t).tobytes() for t in (z, x.grad, y.grad)))
    finally:
        ug.set_num_threads(before)
    assert len(found) == 1


@pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
def test_explain_names_the_rung() -> None:
    x, y = normal((4,), (4,))
    assert ug.fused(CHAINS["gate"][0]).explain(x, y).taken == "cpu/native-pieces"
    powers = ug.fused(lambda x, y: ug.pow(x, y) + 1.0).explain(x, y)
    assert powers.taken != "cpu/native-pieces"
    assert "pow has no loop in C++" in str(powers)


@pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
@pytest.mark.parametrize("given", [
    {"results": [0]}, {"results": []}, {"results": [2, 2]}, {"results": [9]}, {"steps": [("exp", [5], [])]},
    {"steps": [("exp", [0, 0], [])]}, {"steps": [("exp", [0], [1.0])]}, {"steps": [("none", [0], [])]},
    {"steps": [("less", [0, 1], [])]}, {"format": "int8"}, {"steps": [("where", [0, 0, 0], [])]}, {"operands": 0},
    {"steps": [("exp", [-1], [])]},
])  # fmt: skip
def test_chains_that_are_wrong_are_refused(given: dict[str, Any]) -> None:
    right: dict[str, Any] = {
        "operands": 1, "constants": [1.0], "steps": [("exp", [0], [])], "results": [2], "format": "float32",
    }  # fmt: skip
    native.module().ElementwiseChain(**right)
    with pytest.raises(ValueError, match="chain"):
        native.module().ElementwiseChain(**{**right, **given})


@pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
def test_operands_that_do_not_fit_are_refused() -> None:
    chain = native.module().ElementwiseChain(2, [], [("add", [0, 1], [])], [2], "float32")
    x = np.ones((4, 4), "float32")
    for arrays, error in (((x,), TypeError), ((x, x.astype("float64")), TypeError), ((x, x[:, ::2]), ValueError),
                          ((x, np.ones(3, "float32")), ValueError), ((x, 1.0), TypeError),
                          ((x, np.ones(0, "float32")), ValueError)):  # fmt: skip
        with pytest.raises(error, match=r"chain|operand"):
            chain(*arrays, shape=(4, 4))
