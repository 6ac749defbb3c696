"""Convolutions of codes whose own kernel writes the codes of the result: bit for bit what the sums become in a pass of their own,
and what the CPU gives, in every rounding, overflow and format."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import dispatch, nn
from ulpgrad.errors import FormatError, KernelError, ShapeError
from ulpgrad.formats import Format, Integer, int8, int16, int32, int64, uint8, uint16
from ulpgrad.formats.rounding import ROUNDINGS
from ulpgrad.kernels import gpu
from ulpgrad.kernels.conv import cuda_units
from ulpgrad.kernels.fixed import spec as fixed
from ulpgrad.kernels.fixed.cut import Cut
from ulpgrad.kernels.spec import Op
from ulpgrad.quantization import quantize

RUNG = "cuda/cuda-matrix"
#         images           filters         stride  padding  dilation groups
SHAPES = (
    ((2, 10, 9, 10), (140, 5, 3, 2), (1, 2), (1, 1), (1, 1), 2),  # ragged tiles, groups that fill no packet
    ((3, 3, 7, 6), (5, 3, 3, 3), (2, 1), (2, 1), (1, 2), 1),
    ((1, 48, 5, 5), (66, 16, 1, 1), (1, 1), (0, 0), (1, 1), 3),
)


def geometry(shape: Any) -> dict[str, Any]:
    return dict(zip(("stride", "padding", "dilation", "groups"), shape[2:], strict=True))


def codes(form: Format, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Of the whole range, its ends among them."""
    info = np.iinfo(form.storage)
    values = np.random.default_rng(seed).integers(info.min, info.max + 1, shape, info.dtype)
    values.flat[:2] = info.min, info.max
    return values


def called(op: Op, arrays: Any, formats: Any, **params: Any) -> Any:
    given = tuple(None if a is None else gpu.to_device(a) for a in arrays)
    with dispatch.use(**{op.name: RUNG}):
        found = dispatch.call(op, formats, given, params)[0]
    return tuple(map(gpu.to_host, found)) if isinstance(found, tuple) else gpu.to_host(found)


def place(form: Integer, drop: int, rounding: str, wrap: bool, bits: int, report: bool = False) -> Cut:
    """A cut to a word of all of a format's bits; of fewer where it reports, and where 64 have to hold more than the word."""
    fewer = 2 * report + 12 * (form is int64)
    low, high = int(form.min) >> fewer, int(form.max) >> fewer
    return Cut(drop, low, high, form, rounding, wrap, bits, report, -(2**40), 2**40)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("wrap", [False, True], ids=["saturates", "wraps"])
def test_every_cut(rounding: str, wrap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rounding and overflow in every size of a code, reported or not, with a bias of every format; tiles of both widths."""
    for i, (form, given, bias_form) in enumerate(
        ((int8, int8, int8), (uint8, uint8, int64), (int16, int16, int16), (uint16, uint8, int32), (int32, int16, uint16),
         (int64, int8, uint8))
    ):  # fmt: skip
        monkeypatch.setattr(cuda_units, "MANY", 132 * (i % 2))
        x, weight, *_ = shape = SHAPES[i % 3]
        how = {**geometry(shape), "accumulator": "int64" if given is int16 else None, "pad": 5 * (i % 2)}
        arrays = [codes(given, x, i), codes(int16 if i == 4 else int8, weight, i + 1), None, None]
        if i < 5:
            arrays[2] = codes(bias_form, weight[:1], 2) >> {int64: 48, int32: 16}.get(bias_form, 0)
        drop = (10, 10, 16, 1, -2, 12)[i]
        cut = place(form, drop, rounding, wrap, (24, 1, 12, 32 - 8 * wrap, 7, 3)[i], i % 3 == 0)
        y = fixed.conv2d.reference(*arrays[:3], None, **how, left=0, right=0, cut=Cut(0, -(2**62), 2**62, int64))
        if rounding == "stochastic":
            arrays[3] = np.random.default_rng(9).integers(0, 2**32, y.shape, np.uint32)
        formats = tuple(None if a is None else fixed.int_format(a.dtype) for a in arrays)
        zeros = {"left": i % 2, "right": 0 if arrays[2] is None else i % 4}
        found = called(fixed.conv2d, arrays, formats, **how, **zeros, cut=cut)
        wanted = fixed.conv2d.reference(*arrays, **how, **zeros, cut=cut)
        for one, other in zip(*((r if cut.report else (r,)) for r in (found, wanted)), strict=True):
            np.testing.assert_array_equal(one, other)
        values = wanted[0] if cut.report else wanted
        assert len(np.unique(values)) > 20, i
        if cut.report:
            assert 0 < wanted[1].sum() < wanted[1].size, i


Q, BYTES, UNSIGNED = ug.Q(7, 8), ug.Q(3, 4), ug.Q(4, 4, signed=False)


def tensors(device: str, *forms: Any, shape: Any = SHAPES[1]) -> list[ug.Tensor]:
    rng = np.random.default_rng(0)
    sizes = shape[0], shape[1], shape[1][:1]
    values = [rng.uniform(-3, 3, size).astype(np.float32) for size in sizes]
    return [ug.asarray(v).to(f).to(device) for v, f in zip(values, forms, strict=True)]


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("overflow", ["saturate", "wrap"])
@pytest.mark.parametrize("form", [Q, BYTES, UNSIGNED], ids=str)
def test_fixed_point_is_one_kernel(form: Any, overflow: str, rounding: str) -> None:
    """With and without a bias, of a format of its own too: the CPU's bits, from the same generator, and those of two passes."""

    def run(device: str, *, bias: bool = True) -> Any:
        x, weight, b = tensors(device, form, form, Q)
        with ug.fixed.arithmetic(result=ug.Q(4, 3), rounding=rounding, overflow=overflow, generator=ug.Generator(3)):
            return ug.conv2d(x, weight, b if bias else None, stride=2, padding=1)

    for bias in (True, False):
        found: list[Any] = []
        calls = dispatch.calls_of(lambda: found.append(run("cuda", bias=bias)))  # noqa: B023
        assert [op.name for op, *_ in calls if op.name.startswith(("fixed", "integer"))] == ["fixed_conv2d"]
        with dispatch.use(integer_conv2d=RUNG):
            apart = run("cuda", bias=bias)
        wanted = run("cpu", bias=bias)
        for other in (apart, wanted):
            np.testing.assert_array_equal(gpu.to_host(found[0].storage), gpu.to_host(other.storage))
        assert len(np.unique(wanted.storage)) > 8


def test_what_an_accumulator_or_an_error_needs_is_two_passes() -> None:
    x, weight, b = tensors("cuda", BYTES, BYTES, BYTES)
    for rule in ({"accumulator": "int32", "overflow": "wrap"}, {"accumulator": "int64"}):
        calls = dispatch.calls_of(lambda: ug.fixed.conv2d(x, weight, b, **rule))  # noqa: B023
        assert [op.name for op, *_ in calls] == ["fixed_conv2d"]
    with pytest.raises(FormatError, match=r"the result at .* does not fit"), ug.fixed.arithmetic(overflow="raise"):
        ug.conv2d(x, weight, b)


def test_gradient_stops_where_results_did_not_fit() -> None:
    """The kernel says where, in the layout of the images."""
    wanted = {}
    for device in ("cpu", "cuda"):
        x, weight, b = tensors(device, BYTES, BYTES, BYTES)
        laid = np.ascontiguousarray(gpu.to_host(x.to(ug.float32).storage).transpose(0, 2, 3, 1))
        x = ug.permute_dims(ug.asarray(laid).to(BYTES).to(device), (0, 3, 1, 2))
        b.requires_grad = True
        y = ug.conv2d(x, weight, b)
        y.sum().backward()
        assert b.grad is not None
        wanted[device] = [gpu.to_host(a) for a in (y.storage, b.grad.storage)]
    for one, other in zip(*wanted.values(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_refused() -> None:
    x, weight = codes(int8, (1, 3, 5, 5), 0), codes(int8, (2, 3, 3, 3), 1)
    how = geometry(SHAPES[1])
    cut = Cut(2, -128, 127, int8, "nearest_even", least=-(2**80), most=2**80)
    with pytest.raises(KernelError, match="fit 64 bits"):
        called(fixed.conv2d, (x, weight, None, None), (int8, int8, None, None), **how, left=0, right=0, cut=cut)
    with pytest.raises(ShapeError, match=r"bias has shape \(3,\): expected \(2,\)"):
        called(
            fixed.conv2d,
            (x, weight, np.zeros(3, "i1"), None),
            (int8, int8, int8, None),
            **how,
            left=0,
            right=0,
            cut=cut,
        )


@pytest.mark.parametrize(
    ("weight", "activation"),
    [*((w, None) for w in ("int8 per channel", "int8 per tensor", "q8", "q16")), ("int8 per channel", "int8")],
)
def test_quantised_network(weight: str, activation: str | None) -> None:
    """Codes of every layer are the CPU's, and convolutions write them themselves, with bias, zero points and ReLU."""
    ug.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 10, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(10, 12, 3, padding=1, groups=2), nn.MaxPool2d(2),
        nn.ReLU(), nn.Conv2d(12, 5, 1), nn.Flatten(), nn.Linear(20, 4),
    )  # fmt: skip
    x = ug.randn(6, 3, 8, 7)
    model = quantize(network, x, weight=weight, activation=activation)
    wanted, values = model.trace(x), model(x)
    saturated = [layer.saturated(codes) for _, layer, codes, _ in wanted]
    model.to("cuda")
    found: list[Any] = []
    calls = dispatch.calls_of(lambda: found.extend(model.trace(x.to("cuda"))))
    for (name, _, _, one), (_, _, _, other) in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(gpu.to_host(one), other, err_msg=name)
    ops = [op.name for op, *_ in calls]
    assert ops.count("integer_conv2d_requantized") == 3
    assert not {"requantize", "integer_conv2d"} & set(ops)
    np.testing.assert_array_equal(gpu.to_host(model(x.to("cuda")).storage), values.storage)
    assert "integer_conv2d_requantized cuda/cuda-matrix" in model.summary()
    assert [layer.saturated(codes) for _, layer, codes, _ in found] == saturated
