"""Quantised networks against Python's integers: every code of every layer, from the codes that went in."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.formats import Affine, Fixed
from ulpgrad.quantization import QuantizedModel, quantize
from ulpgrad.quantization.layers import IntegerConv2d, Product, code_range, zero_code
from ulpgrad.quantization.scale import fixed_multiplier

KINDS = [
    {"weight": "int8 per channel"},
    {"weight": "int8 per tensor", "activation": "int8"},
    {"weight": "q8"},
    {"weight": "q16"},
    {"weight": ug.Q(1, 10), "activation": ug.Q(3, 9)},
]


def mlp(rng: np.random.Generator) -> tuple[nn.Module, np.ndarray]:
    """Layers with and without ReLU and bias, on inputs of both signs."""
    ug.manual_seed(int(rng.integers(1000)))
    model = nn.Sequential(
        nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 7, bias=False), nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    return model, rng.normal(size=(40, 12)).astype(np.float32)


def cnn(rng: np.random.Generator) -> tuple[nn.Module, np.ndarray]:
    """Padding around inputs with a zero point, groups, strides, dilation, both poolings with padding, a lone ReLU."""
    ug.manual_seed(int(rng.integers(1000)))
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.MaxPool2d(2, stride=1, padding=1), nn.ReLU(),
        nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(2, 0), dilation=(2, 1), groups=2), nn.AvgPool2d(3, stride=2, padding=1),
        nn.ReLU(), nn.Sequential(nn.Conv2d(6, 3, 1, padding=1), nn.AvgPool2d((2, 3), padding=(0, 1), count_include_pad=False)),
        nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten(), nn.Linear(18, 4),
    )  # fmt: skip
    norm = model[1]
    norm.running_mean.storage[...] = rng.normal(size=4)
    norm.running_var.storage[...] = rng.uniform(0.5, 2, 4)
    return model.eval(), (rng.normal(size=(20, 2, 7, 6)) + 0.5).astype(np.float32)


def rounded(value: Fraction, ties: str) -> int:
    """The nearest integer, of two the larger one or the even one."""
    floor, rest = divmod(value, 1)
    up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and (ties == "up" or floor % 2 == 1))
    return int(floor) + up


def product_of_python(layer: Product, given: np.ndarray) -> np.ndarray:
    """Sums of products and their requantisation, one code at a time."""
    weight = layer.weight.storage.astype(object)
    if isinstance(layer, IntegerConv2d):
        s = layer.settings
        (top, left), (kh, kw) = s["padding"], weight.shape[2:]
        padded = np.pad(
            given.astype(object), ((0, 0), (0, 0), (top, top), (left, left)), constant_values=zero_code(layer.source)
        )
        rows = (padded.shape[2] - s["dilation"][0] * (kh - 1) - 1) // s["stride"][0] + 1
        columns = (padded.shape[3] - s["dilation"][1] * (kw - 1) - 1) // s["stride"][1] + 1
        sums = np.zeros((len(given), len(weight), rows, columns), object)
        share = len(weight) // s["groups"]
        for n, o, y, x in itertools.product(*map(range, sums.shape)):
            first = o // share * weight.shape[1]
            for c, i, j in itertools.product(*map(range, weight.shape[1:])):
                at = (y * s["stride"][0] + i * s["dilation"][0], x * s["stride"][1] + j * s["dilation"][1])
                sums[n, o, y, x] += int(weight[o, c, i, j]) * int(padded[(n, first + c, *at)])
    else:
        sums = given.astype(object) @ weight.T
    low, high = code_range(layer.target)
    ties = "up" if isinstance(layer.source, Affine) else "even"
    out = np.zeros(sums.shape, object)
    for at in np.ndindex(*sums.shape):
        c = at[1]
        total = int(sums[at]) + int(layer.bias.storage[c])
        if layer.source.bits == 8 and layer.accumulator == "int32":
            total = (total + 2**31) % 2**32 - 2**31
        factor = 1 if layer.multiplier is None else int(layer.multiplier.storage[c])
        code = rounded(Fraction(total * factor, 2 ** int(layer.shift.storage[c])), ties) + zero_code(layer.target)
        out[at] = min(max(code, zero_code(layer.target) if layer.relu else low), high)
    return out


def pool_of_python(layer: Any, given: np.ndarray) -> np.ndarray:
    s = layer.settings
    if layer.label == "adaptive_avg_pool2d":
        return pool_to_a_size_of_python(layer, given)
    (n, c, height, width), (kh, kw) = given.shape, s["kernel_size"]
    rows = (height + 2 * s["padding"][0] - kh) // s["stride"][0] + 1
    columns = (width + 2 * s["padding"][1] - kw) // s["stride"][1] + 1
    out = np.zeros((n, c, rows, columns), object)
    for at in np.ndindex(*out.shape):
        seen = []
        for i, j in itertools.product(range(kh), range(kw)):
            y, x = at[2] * s["stride"][0] - s["padding"][0] + i, at[3] * s["stride"][1] - s["padding"][1] + j
            if 0 <= y < height and 0 <= x < width:
                seen.append(int(given[at[0], at[1], y, x]))
            elif s.get("count_include_pad"):
                seen.append(zero_code(layer.source))
        ties = "up" if isinstance(layer.source, Affine) else "even"
        out[at] = max(seen) if layer.label == "max_pool2d" else rounded(Fraction(sum(seen), len(seen)), ties)
    return out


def pool_to_a_size_of_python(layer: Any, given: np.ndarray) -> np.ndarray:
    (n, c, height, width), (rows, columns) = given.shape, layer.settings["output_size"]
    out = np.zeros((n, c, rows, columns), object)
    for at in np.ndindex(*out.shape):
        down, across = (
            range(i * s // m, -(-(i + 1) * s // m))
            for i, s, m in zip(at[2:], (height, width), (rows, columns), strict=True)
        )
        seen = [int(given[at[0], at[1], i, j]) for i, j in itertools.product(down, across)]
        out[at] = rounded(Fraction(sum(seen), len(seen)), "up" if isinstance(layer.source, Affine) else "even")
    return out


def expected(layer: Any, given: np.ndarray) -> np.ndarray:
    if isinstance(layer, Product):
        return product_of_python(layer, given)
    if "pool" in layer.label:
        return pool_of_python(layer, given)
    return np.maximum(given, zero_code(layer.source)) if layer.label == "relu" else given.reshape(len(given), -1)


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_every_code_is_that_of_pythons_integers(make: Any, kind: dict[str, Any]) -> None:
    for seed in range(2):
        model, x = make(np.random.default_rng(seed))
        quantized = quantize(model, x, **kind)
        for name, layer, given, codes in quantized.trace(x[:3] * 1.2):  # some values saturate
            assert codes.dtype.kind in "iu"
            wanted = expected(layer, given)
            assert codes.shape == wanted.shape
            assert (codes == wanted).all(), f"layer {name} ({layer.label})"


def first_product(quantized: QuantizedModel) -> Product:
    return next(layer for layer in quantized.layers if isinstance(layer, Product))


def test_weights_and_biases_are_rounded_once() -> None:
    model, x = mlp(np.random.default_rng(3))
    quantized = quantize(model, x)
    layer = first_product(quantized)
    real, scale = model[0].weight.storage.astype(np.float64), layer.weight_scale.storage
    assert scale.tolist() == [float(np.abs(row).max()) / 127 for row in real]
    assert (layer.weight.storage == np.rint(real / scale[:, None])).all()
    assert np.abs(layer.weight.storage).max() == 127
    source = quantized.source
    assert isinstance(source, Affine)
    assert source.zero_point != 0
    for c, row in enumerate(layer.weight.storage.astype(object)):
        unit = Fraction(float(source.scale * scale[c]))
        assert (
            layer.bias.storage[c]
            == rounded(Fraction(float(model[0].bias.storage[c])) / unit, "even") - source.zero_point * row.sum()
        )


def test_multipliers_are_within_a_part_in_2_to_the_31() -> None:
    rng = np.random.default_rng(0)
    factors = np.concatenate([2.0 ** rng.uniform(-31, 30, 1000), [1.0, 0.5, 1 - 2.0**-53, 1 + 2.0**-52, 2.0**-31]])
    multiplier, shift = fixed_multiplier(factors)
    assert multiplier.dtype == shift.dtype == np.int32
    assert (multiplier >= 2**30).all()
    for factor, m, s in zip(factors, multiplier, shift, strict=True):
        assert abs(Fraction(int(m), 2 ** int(s)) / Fraction(factor) - 1) <= Fraction(1, 2**31)
    small, shift = fixed_multiplier(np.array([2.0**-40, 2.0**-80]))
    assert (small.tolist(), shift.tolist()) == ([2**22, 0], [62, 62])
    for wrong in (0.0, -1.0, 2.0**31, np.nan, np.inf):
        with pytest.raises(ug.errors.ArgumentError, match="factor"):
            fixed_multiplier(np.array([wrong]))


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: "-".join(map(str, kind.values())))
def test_codes_are_the_nearest_to_real_arithmetic(make: Any, kind: dict[str, Any]) -> None:
    """From the same codes, float64 on the values they stand for gives the same codes but where the multiplier's 31 bits or a
    tie decide: nowhere by more than one."""
    model, x = make(np.random.default_rng(5))
    for _, layer, given, codes in quantize(model, x, **kind).trace(x):
        if (
            not isinstance(layer, Product)
            or not isinstance(layer.target, (Affine, Fixed))
            or isinstance(layer, IntegerConv2d)
        ):
            continue
        channel = np.asarray(layer.weight_scale.storage * layer.source.scale)
        bias = (layer.bias.storage + zero_code(layer.source) * layer.weight.storage.sum(1, dtype=np.int64)) * channel
        real = layer.source.exact(given) @ layer.decoded_weight().T + bias
        real = np.maximum(real, 0) if layer.relu else real
        difference = np.abs(layer.target.encode(real).astype(int) - codes)
        assert difference.max() <= 1
        assert (difference == 0).mean() > 0.99


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: "-".join(map(str, kind.values())))
def test_all_rungs_give_the_same(kind: dict[str, Any]) -> None:
    model, x = cnn(np.random.default_rng(7))
    quantized = quantize(model, x, **kind)
    codes = quantized.encode(x)
    with ug.use(requantize="cpu/reference", integer_matmul="cpu/reference", integer_conv2d="cpu/reference",
                integer_linear="cpu/reference", integer_max_pool2d="cpu/reference",
                integer_avg_pool2d="cpu/reference"):  # fmt: skip
        plain = quantized.run(codes)
    assert (plain == quantized.run(codes)).all()
