"""The C++ matrix products: every instruction set, type and memory order at sizes around its tiles and blocks."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad.errors import FormatError, ShapeError
from ulpgrad.formats import Array, Format, as_format, bfloat16, float16, float32, float64
from ulpgrad.kernels import capabilities, native

pytestmark = pytest.mark.skipif(native.missing() is not None, reason=str(native.missing()))

WAYS = [("portable", False), ("avx2", False), ("avx512", False), ("avx512", True)]
UNIT = {float64: 2.0**-53, float32: 2.0**-24, float16: 2.0**-11, bfloat16: 2.0**-8}
LEAST = {float64: 0.0, float32: 0.0, float16: 2.0**-25, bfloat16: 2.0**-134}  # half a step between subnormal numbers
SIZES = [
    *itertools.product((1, 2, 5, 14, 17, 45), (0, 1, 2, 7, 33, 600), (1, 3, 16, 33, 70)),
    (200, 2100, 40),
    (9, 5, 1100),
]


def ways(form: Format) -> list[tuple[str, bool]]:
    """(isa, dots) that this machine has for a format."""
    found = [(isa, dots) for isa, dots in WAYS if not dots and (isa == "portable" or capabilities.missing(isa) is None)]
    return [*found, ("avx512", True)] if form is bfloat16 and not capabilities.missing("avx512_bf16") else found


def draw(rng: Any, form: Format, shape: tuple[int, ...], transposed: bool = False) -> tuple[Array, Array]:
    """Stored values of a format, rows or columns contiguous, and the same exactly in float64."""
    stored = form.encode(rng.standard_normal(shape[::-1] if transposed else shape))
    stored = stored.T if transposed else stored
    return stored, form.exact(stored)


def check(form: Format, got: Array, a: Array, b: Array, where: Any) -> None:
    """Every value is the product to a few roundings of its terms, and to one of the result's format."""
    terms = abs(a) @ abs(b)
    single = 2.0**-24 if form is not float64 else UNIT[float64]
    allowed = 1.01 * UNIT[form] * abs(a @ b) + 4 * single * terms + LEAST[form]
    assert (abs(form.exact(got) - a @ b) <= allowed).all(), where


@pytest.mark.parametrize("form", [float32, float64, float16, bfloat16], ids=str)
def test_products(form: Format) -> None:
    rng = np.random.default_rng(0)
    for (m, k, n), left, right in itertools.product(SIZES, (False, True), (False, True)):
        a, exact_a = draw(rng, form, (m, k), left)
        b, exact_b = draw(rng, form, (k, n), right)
        for isa, dots in ways(form):
            check(form, native.module().matmul(a, b, isa, dots), exact_a, exact_b, (m, k, n, left, right, isa, dots))


@pytest.mark.parametrize("form", [float32, bfloat16], ids=str)
def test_any_strides(form: Format) -> None:
    rng = np.random.default_rng(1)
    for isa, dots in ways(form):
        a, b = form.encode(rng.standard_normal((60, 80))), form.encode(rng.standard_normal((90, 70)))
        left, right = a[::-2, 5:75:2], b[80:10:-2, ::3]
        got = native.module().matmul(left, right, isa, dots)
        check(form, got, form.exact(left), form.exact(right), (isa, dots))


@pytest.mark.parametrize("form", [float32, bfloat16], ids=str)
def test_stacks_of_small_products(form: Format) -> None:
    rng = np.random.default_rng(4)
    for stack, m, k, n in ((300, 3, 5, 7), (129, 16, 16, 16), (5, 33, 40, 35), (2, 200, 24, 90)):
        a, b = draw(rng, form, (stack, m, k)), draw(rng, form, (stack, k, n))
        for isa, dots in ways(form):
            check(form, native.module().matmul(a[0], b[0], isa, dots), a[1], b[1], (stack, m, k, n, isa, dots))


@pytest.mark.parametrize("form", [float32, float16, bfloat16], ids=str)
@pytest.mark.parametrize("activation", ["", "relu", "gelu", "silu", "tanh", "sigmoid"])
def test_bias_and_activation(form: Format, activation: str) -> None:
    from ulpgrad.kernels.matmul.spec import linear_reference

    rng = np.random.default_rng(2)
    for m, k, n in ((1, 40, 33), (20, 40, 1), (31, 1100, 50)):
        (x, x_exact), (w, w_exact), (bias, bias_exact) = (draw(rng, form, s) for s in ((m, k), (n, k), (n,)))
        want = linear_reference(x_exact, w_exact, bias_exact, activation=activation or None)
        size = abs(x_exact) @ abs(w_exact.T) + abs(bias_exact) + 1
        for isa, dots in ways(form):
            got = form.exact(native.module().linear(x, w, bias, activation, isa, dots))
            assert (abs(got - want) <= 1.01 * UNIT[form] * abs(want) + 2.0**-21 * size).all(), (m, k, n, isa, dots)


@pytest.mark.parametrize("form", [float32, float64, float16, bfloat16], ids=str)
def test_what_follows_a_product(form: Format) -> None:
    """Scale, bias, activation and residual in one write-out, rounded once to each format that results may have."""
    rng = np.random.default_rng(5)
    for m, k, n in ((1, 40, 33), (20, 40, 1), (9, 700, 50), (31, 2100, 70), (200, 20, 90), (17, 4200, 17)):
        shapes = (m, k), (n, k), (n,), (n,), (m, n)
        (x, w, bias, scale, residual), exact = zip(*(draw(rng, form, s) for s in shapes), strict=True)
        want = np.tanh(exact[0] @ exact[1].T * 0.3 * exact[3] + exact[2]) + exact[4]
        size = 0.3 * abs(exact[3]) * (abs(exact[0]) @ abs(exact[1].T)) + abs(exact[2]) + abs(exact[4]) + 1
        for isa, dots in ways(form):
            for out in (form,) if form is float64 else (float32, float16, bfloat16):
                got = native.module().linear(
                    x, w, bias, "tanh", isa, dots, scale=scale, residual=residual, factor=0.3,
                    stored="" if out is form else out.name,
                )  # fmt: skip
                allowed = 1.01 * UNIT[out] * abs(want) + (2.0**-50 if form is float64 else 2.0**-21) * size
                assert (abs(out.exact(got) - want) <= allowed).all(), (m, k, n, isa, dots, out)


def test_linear_in_every_result_format() -> None:
    """What the kernels do not round to themselves is rounded from their float32 sums, and steps come to the same as one."""
    rng = np.random.default_rng(6)
    for source in (ug.float32, ug.bfloat16, ug.float8_e4m3fn, ug.float64):
        x, w, b, s, r = (
            ug.asarray(rng.standard_normal(shape)).to(source) for shape in ((5, 9), (4, 9), (4,), (4,), (5, 4))
        )
        for dtype in (None, ug.float32, ug.float64, ug.float16, ug.bfloat16, ug.float8_e5m2, ug.Q(3, 12)):
            got = ug.linear(x, w, b, "gelu", scale=s, residual=r, dtype=dtype)
            wide = [ug.astype(t, ug.float64) for t in (x, w, b, s, r)]
            want = ug.gelu(wide[0] @ wide[1].T * wide[3] + wide[2]) + wide[4]
            assert got.dtype is (dtype or source)
            step = {ug.float64: 2.0**-20 if source is not ug.float64 else 2.0**-50}.get(got.dtype, 2.0**-20)
            step = {ug.float16: 2.0**-11, ug.bfloat16: 2.0**-8, ug.float8_e4m3fn: 2.0**-4, ug.float8_e5m2: 2.0**-3}.get(
                got.dtype, 2.0**-12 if dtype == ug.Q(3, 12) else step
            )
            near = abs(got.to(ug.float64).numpy() - want.numpy()) <= step * (2 + abs(want.numpy()))
            assert near.all(), (source, dtype)


def test_linear_in_steps_and_at_once() -> None:
    """With a chosen accumulator, under a policy, and while a gradient is recorded, linear gives what it gives at once."""
    rng = np.random.default_rng(7)
    x, w, b, s, r = (ug.asarray(rng.standard_normal(k).astype("f4")) for k in ((5, 9), (4, 9), (4,), (4,), (5, 4)))
    finish = {"scale": s, "residual": r, "dtype": ug.bfloat16}
    want = ug.linear(x, w, b, "silu", **finish).to(ug.float32).numpy()
    leaf = ug.asarray(w.numpy(), requires_grad=True)
    found = ug.linear(x, leaf, b, "silu", **finish)
    found.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.dtype is ug.float32
    others = [found.detach(), ug.linear(x, w, b, "silu", **finish, accumulate=ug.float32)]
    with ug.policy.Policy(weight=ug.float32):
        others.append(ug.linear(x, w, b, "silu", **finish))
    for other in others:
        np.testing.assert_allclose(other.to(ug.float32).numpy(), want, rtol=2.0**-7)
    with pytest.raises(ShapeError, match="residual of the result's shape"):
        ug.linear(x, w, residual=s)
    with pytest.raises(ShapeError, match="scale of shape"):
        ug.linear(x, w, scale=r)


def test_bfloat16_products_of_tiny_numbers() -> None:
    """Subnormal operands, and products that only float32's subnormal numbers hold: VDPBF16PS would flush them."""
    tiny = 2.0 ** np.arange(-133, -50, dtype=np.float64)
    for isa, dots in ways(bfloat16):
        for factor in (1.0, 2.0**-10, 2.0**40):
            a, b = bfloat16.encode(np.outer(tiny, [1.0, -0.5, 0.25])), bfloat16.encode(np.full((3, 20), factor))
            got = bfloat16.exact(native.module().matmul(a, b, isa, dots))
            want = bfloat16.exact(bfloat16.encode(bfloat16.exact(a) @ bfloat16.exact(b)))
            assert np.array_equal(got, want), (isa, dots, factor)
        a = bfloat16.encode(np.full((20, 700), 2.0**-65))
        got = native.module().matmul(a, a.T, isa, dots)
        assert np.array_equal(bfloat16.exact(got), bfloat16.exact(bfloat16.encode(np.full((20, 20), 700 * 2.0**-130))))


@pytest.mark.parametrize("form", [float32, float64, float16, bfloat16], ids=str)
def test_any_number_of_threads(form: Format) -> None:
    rng = np.random.default_rng(3)
    before = ug.get_num_threads()
    shapes = ((130, 1500, 301), (1, 700, 3000), (3000, 700, 1), (5, 700, 900), (900, 700, 5), (600, 2100, 90),
              (17, 4200, 17))  # fmt: skip
    for (m, k, n), right in itertools.product(shapes, (False, True)):
        a, b = draw(rng, form, (m, k))[0], draw(rng, form, (k, n), right)[0]
        for isa, dots in ways(form):
            results = []
            for threads in (1, 2, 3):
                ug.set_num_threads(threads)
                results.append(native.module().matmul(a, b, isa, dots))
            ug.set_num_threads(before)
            assert all(np.array_equal(results[0], r) for r in results[1:]), (m, k, n, right, isa, dots)


def test_refuses_mixed_types() -> None:
    with pytest.raises(TypeError, match="b: expected float32 values, got float16"):
        native.module().matmul(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.float16))


@pytest.mark.parametrize(
    ("dtype", "value", "rounded"),
    [("float32", 1 + 2**-24, 1 + 2**-23), ("bfloat16", 1 + 2**-8, 1 + 2**-7), ("float16", 1 + 2**-11, 1 + 2**-10),
     ("float8_e4m3fn", 1.0625, 1.125), ("q7.8", 2**-9, 2**-8)],
)  # fmt: skip
def test_sums_of_float64_are_rounded_once(dtype: str, value: float, rounded: float) -> None:
    """A hair above the middle of two values lies nearer to the upper one: rounded to float32 first, it would be the middle."""
    for rows in (1, 3, 40):
        weight = ug.asarray(np.array([[value + 2**-45]]))
        got = ug.linear(ug.ones((rows, 1), dtype="float64"), weight, dtype=dtype)
        assert str(got.dtype) == dtype
        assert (np.asarray(got.to("float64")) == rounded).all()


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 40, 70), (17, 33, 65), (40, 31, 1), (5, 0, 3), (9, 4, 0), (70, 300, 2100), (300, 40, 20)]
)
def test_packed_weights_give_the_same_bits(dtype: str, m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(m)
    x, weight = (ug.asarray(rng.standard_normal(s) * 1e-20, dtype=dtype) for s in ((m, k), (n, k)))
    x, bias = x * 1e20, ug.asarray(rng.standard_normal(n), dtype=dtype)
    packed = ug.prepack(weight)
    for isa, dots in ways(as_format(dtype)):
        with ug.use(linear=f"cpu/native-{'avx512-bf16' if dots else isa}"):
            for _ in range(3):  # packed at first, then found
                got, want = ug.linear(x, packed, bias, "gelu"), ug.linear(x, weight, bias, "gelu")
                assert got.storage.tobytes() == want.storage.tobytes(), isa


def test_packed_weights_stay_what_they_were() -> None:
    weight, x = ug.randn(20, 70), ug.randn(30, 70, requires_grad=True)
    packed = ug.prepack(weight)
    before = ug.linear(x.detach(), packed)
    want = ug.linear(x.detach(), weight)
    weight[...] = 0.0
    assert (ug.linear(x.detach(), packed).numpy() == before.numpy()).all()
    assert (before.numpy() == want.numpy()).all()
    y = ug.linear(x, packed, None, "relu", scale=0.5)
    y.sum().backward()
    expected = ((before.numpy() > 0) * 0.5) @ packed.tensor.numpy()
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        packed.tensor[0, 0] = 1.0
    assert repr(packed) == "PackedWeight(20, 70, float32)"
    for bad in (ug.ones(3), np.ones((2, 2))):
        with pytest.raises(ShapeError, match="prepack: expected a weight"):
            ug.prepack(bad)  # type: ignore[arg-type]
    for form in ("mxfp8_e4m3", "q7.8", "int8"):
        with pytest.raises(FormatError, match=f"prepack: {form} is not taken"):
            ug.prepack(ug.ones((2, 32)).to(form))
    with pytest.raises(ShapeError, match="input sizes differ"):
        ug.linear(ug.ones((2, 3)), packed)


def test_a_packed_layer_is_the_layer_as_it_was() -> None:
    layer = ug.nn.Linear(65, 33)
    packed, inputs = ug.nn.PackedLinear(layer), [ug.randn(*shape, 65) for shape in ((), (1,), (8,), (9,), (2, 20))]
    before = [layer(x, "relu").detach().numpy() for x in inputs]
    with ug.no_grad():
        layer.weight[...] = 0.0
        layer.bias[...] = 0.0
    for x, want in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(packed(x, "relu").numpy(), want)
    assert list(packed.parameters()) == []
    assert (
        ug.nn.PackedLinear(ug.nn.Linear(3, 2, bias=False)).extra_repr() == "in_features=3, out_features=2, bias=False"
    )


def test_packed_weights_with_other_formats_and_policies() -> None:
    weight = ug.randn(33, 65)
    packed = ug.prepack(weight)
    wide = ug.randn(20, 65, dtype="float64")
    assert (ug.linear(wide, packed).numpy() == ug.linear(wide, weight).numpy()).all()
    narrow = ug.randn(20, 65)
    with ug.autocast("bfloat16"):
        assert (ug.linear(narrow, packed).storage == ug.linear(narrow, weight).storage).all()


@pytest.mark.skipif(native.missing() is not None, reason=native.missing() or "")
def test_panels_of_another_weight_are_refused() -> None:
    module = native.module()
    x, weight = np.ones((30, 70), np.float32), np.ones((20, 70), np.float32)
    packed = module.pack_weight(weight, "portable", False)
    assert packed.nbytes >= weight.nbytes
    for other, isa in ((weight[:19], "portable"), (weight.astype(np.float64), "portable"), (weight, "avx2")):
        if isa == "avx2" and "avx2" not in module.cpu_isas():
            continue
        with pytest.raises(ValueError, match="packed: expected"):
            module.linear(x.astype(other.dtype), other, None, "", isa, False, packed=packed)
