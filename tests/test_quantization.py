"""Quantisation of trained networks: calibration, accuracy on the digits, what is fused and folded, saving, and bad input."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ulpgrad as ug
from ulpgrad import nn
from ulpgrad.errors import ArgumentError, AxisError, DataError, FormatError
from ulpgrad.kernels import native
from ulpgrad.quantization import METHODS, Comparison, calibrate, calibrate_fixed, compare, load, quantize, save
from ulpgrad.quantization.layers import Product

RNG = np.random.default_rng(0)
BELL = RNG.normal(size=(4, 2000)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Small layers: a second thread only waits."""
    before = ug.get_num_threads()
    ug.set_num_threads(1)
    yield
    ug.set_num_threads(before)


# Calibration


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("base", ["int8", "uint8"])
@pytest.mark.parametrize("method", METHODS)
def test_zero_is_a_code_and_max_saturates_nothing(method: str, base: str, symmetric: bool) -> None:
    for values in (BELL, np.abs(BELL) + 1, -np.abs(BELL) - 1, BELL[:1, :1]):
        form = calibrate(values, method=method, base=base, symmetric=symmetric)
        assert form.base == base
        assert form.exact(form.encode(np.zeros(1))) == 0
        if symmetric:
            assert form.zero_point == (0 if base == "int8" else 128)
        if method == "max":
            step = form.scale / 2 * (1 + 1e-9) if symmetric else form.scale
            assert np.abs(form.exact(form.encode(values)) - values).max() <= step


def test_methods_differ_as_they_should() -> None:
    values = BELL.copy()
    values[0, 0] = 40.0  # one outlier
    error = {}
    for method in METHODS:
        for symmetric in (True, False):
            form = calibrate(values, method=method, symmetric=symmetric, percentile=99.9)
            error[method, symmetric] = ((form.exact(form.encode(values)) - values)[1:] ** 2).mean()
            whole = ((form.exact(form.encode(values)) - values) ** 2).mean()
            error["whole", method, symmetric] = whole
    for symmetric in (True, False):
        assert error["percentile", symmetric] < error["max", symmetric] / 20
        assert all(error["whole", "mse", symmetric] <= error["whole", m, symmetric] for m in ("max", "percentile"))


def test_mse_clips_a_bell_at_few_bits_of_range() -> None:
    """On a normal distribution the best int8 range ends before the largest value."""
    assert calibrate(BELL, method="mse").scale < calibrate(BELL, method="max").scale


def test_per_channel_is_per_tensor_of_each_channel() -> None:
    values = BELL * np.array([[1e-3], [1], [10], [0]], np.float32)
    for method in METHODS:
        for axis, rows in ((0, values), (1, values.T), (-2, values)):
            whole = calibrate(rows, method=method, axis=axis)
            assert whole.axis == axis % 2
            for i in range(4):
                part = calibrate(np.take(rows, i, axis), method=method)
                assert whole.scale[i] == part.scale
    assert calibrate(values, axis=0).scale[3] == 1  # all zeros


@pytest.mark.parametrize("bits", [8, 16])
def test_radix_point(bits: int) -> None:
    last = 2.0 ** (1 - bits)
    for values, m in (([1.0], 1), ([-1.0, 0.5], 0), ([1 - last], 0), ([1 - last / 4], 1), ([3.9], 2), ([0.1, -0.12], -3),
                      ([1000.0], 10), ([2.0**-20], -19)):  # fmt: skip
        form = calibrate_fixed(values, bits=bits)
        assert form is ug.Q(m, bits - 1 - m), values
        codes = np.rint(np.asarray(values) / form.scale)
        assert form.min_code <= codes.min() <= codes.max() <= form.max_code
    assert calibrate_fixed([0.5, 3.0], bits=bits, signed=False) is ug.Q(2, bits - 2, signed=False)
    assert (
        calibrate_fixed(BELL, bits=bits, method="mse").fraction_bits >= calibrate_fixed(BELL, bits=bits).fraction_bits
    )


def test_bad_calibration() -> None:
    with pytest.raises(ArgumentError, match="method='median': expected one of max, percentile, mse"):
        calibrate(BELL, method="median")
    with pytest.raises(ArgumentError, match="no values"):
        calibrate(np.zeros((0, 3)))
    with pytest.raises(ArgumentError, match="NaN or an infinity"):
        calibrate([1.0, np.nan])
    with pytest.raises(ArgumentError, match="NaN or an infinity"):
        calibrate_fixed([np.inf])
    with pytest.raises(AxisError, match="axis 2"):
        calibrate(BELL, axis=2)
    with pytest.raises(ArgumentError, match="base='int4'"):
        calibrate(BELL, base="int4")
    with pytest.raises(ArgumentError, match="percentile=20"):
        calibrate(BELL, percentile=20)
    with pytest.raises(ArgumentError, match="bits=1"):
        calibrate_fixed(BELL, bits=1)
    with pytest.raises(ArgumentError, match="signed=True"):
        calibrate_fixed(BELL, signed=False)
    with pytest.raises(FormatError, match="scale=0"):
        ug.Affine("int8", 0.0)
    with pytest.raises(FormatError, match="zero_point=300"):
        ug.Affine("uint8", 1.0, 300)


# Networks


def trained(model: nn.Module, epochs: int) -> nn.Module:
    opt = ug.optim.Adam(model.parameters(), lr=3e-3)
    for x, y in (
        batch for e in range(epochs) for batch in ug.data.DataLoader(ug.data.digits(), 64, shuffle=True, seed=e)
    ):
        loss = ug.cross_entropy(model(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    return model


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    ug.manual_seed(0)
    mlp = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )
    cnn = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Conv2d(8, 16, 3, padding="same"), nn.BatchNorm2d(16), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    return {"mlp": trained(mlp, 8), "cnn": trained(cnn, 4)}


def data(split: str) -> tuple[ug.Tensor, ug.Tensor]:
    x, y = ug.data.digits(split)[:]
    return x, y


ROADS: list[tuple[dict[str, Any], float]] = [
    ({"weight": "int8 per channel"}, 0.01),
    ({"weight": "int8 per channel", "method": "percentile"}, 0.01),
    ({"weight": "int8 per channel", "method": "mse", "weight_method": "mse", "activation": "int8"}, 0.01),
    ({"weight": "int8 per tensor"}, 0.01),
    ({"weight": "q16"}, 0.002),
    ({"weight": "q8"}, 0.02),
    ({"weight": ug.Q(3, 12), "activation": "q16"}, 0.002),
]


@pytest.mark.parametrize(
    ("options", "loss"), ROADS, ids=lambda v: "-".join(map(str, v.values())) if isinstance(v, dict) else ""
)
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_digits_keep_their_accuracy(
    networks: dict[str, nn.Module], name: str, options: dict[str, Any], loss: float
) -> None:
    model = networks[name]
    before = {key: value.storage.copy() for key, value in model.state_dict().items()}
    quantized = quantize(model, data("train")[0][:256], **options)
    found = compare(model, quantized, data("test"))
    assert found.accuracy > 0.9
    assert found.quantized_accuracy >= found.accuracy - loss
    assert found.inputs == 500
    assert model.training
    assert all((value.storage == before[key]).all() for key, value in model.state_dict().items())
    assert found.quantized_nbytes < found.nbytes * (0.6 if "16" in str(options) or "q3" in str(options) else 0.4)
    assert min(layer.sqnr for layer in found.layers) > (20 if options["weight"] == "q8" else 25)
    assert all(layer.saturated < 0.01 for layer in found.layers)


def test_only_integers_run_between_the_ends(networks: dict[str, nn.Module]) -> None:
    quantized = quantize(networks["cnn"], data("train")[0][:64])
    ops = [call.op for _, calls in quantized.kernels(batch=4) for call in calls]
    assert ops == ["integer_conv2d", "requantize", "integer_max_pool2d", "integer_conv2d", "requantize", "integer_avg_pool2d",
                   *(("integer_linear",) if native.missing() is None else ("integer_matmul", "requantize"))]  # fmt: skip
    operands = {operand for _, calls in quantized.kernels() for call in calls for operand in call.operands}
    assert operands <= {"int8", "uint8", "int16", "int32", "int64"}
    codes = quantized.run(quantized.encode(data("test")[0]))
    assert codes.dtype == np.int32
    text = quantized.summary(batch=32)
    for part in (
        "conv2d + relu",
        "8x1x3x3 int8 per channel",
        "affine(uint8",
        "M/2^s",
        "integer_linear cpu/native" if native.missing() is None else "integer_matmul cpu/",
        "int32 sums",
    ):
        assert part in text
    text = quantize(networks["mlp"], data("train")[0][:64], weight="q16").summary()
    assert "2^-" in text
    assert "int64" in text
    assert "M/2^s" not in text


def test_channels_of_different_size_need_scales_of_their_own() -> None:
    """ReLU lets one channel's factor move to the next layer: the network is the same, a scale for all channels is not enough."""
    ug.manual_seed(1)
    model = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
    factors = 10.0 ** np.linspace(-3, 0, 8, dtype=np.float32)
    model[0].weight.storage *= factors[:, None]
    model[0].bias.storage *= factors
    x = RNG.normal(size=(200, 16)).astype(np.float32)
    labels = np.zeros(200, np.int64)
    weight_error = {}
    for weight in ("int8 per channel", "int8 per tensor"):
        layer = next(part for part in quantize(model, x, weight=weight).layers if isinstance(part, Product))
        weight_error[weight] = np.abs(layer.decoded_weight() / model[0].weight.storage - 1).max()
    assert weight_error["int8 per channel"] < weight_error["int8 per tensor"] / 2
    found = compare(model, quantize(model, x), (x, labels))
    assert isinstance(found, Comparison)


def test_outliers_saturate_and_are_counted() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    model[0].weight.storage[...] = np.eye(4)
    x = RNG.uniform(-1, 1, (500, 4)).astype(np.float32)
    quantized = quantize(model, x)
    labels = np.zeros(500, np.int64)
    assert compare(model, quantized, (x, labels)).layers[0].saturated == 0
    wide = quantize(model, x * 4)
    narrow = quantize(model, x, activation="int8")
    assert compare(model, wide, (x * 4, labels)).layers[0].saturated == 0
    assert compare(model, narrow, (x * 4, labels)).layers[0].sqnr < 10


def test_norm_is_folded_as_it_runs(networks: dict[str, nn.Module]) -> None:
    from ulpgrad.quantization.fold import evaluating, fold

    model, x = networks["cnn"], data("test")[0][:32]
    with ug.no_grad(), evaluating(model):
        expected, y = model(x), x
        for step in fold(model):
            y = step.run(y)
    assert np.abs(y.storage - expected.storage).max() < 1e-4
    assert [step.kind for step in fold(model)] == [
        "conv2d",
        "max_pool2d",
        "conv2d",
        "avg_pool2d",
        "relu",
        "flatten",
        "linear",
    ]
    assert [step.relu for step in fold(model)][:3] == [True, False, False]


def test_quantized_networks_are_saved_and_loaded(networks: dict[str, nn.Module], tmp_path: Path) -> None:
    x = data("test")[0]
    for name in networks:
        for weight in ("int8 per channel", "int8 per tensor", "q16"):
            quantized = quantize(networks[name], x[:100], weight=weight)
            save(quantized, tmp_path / "q.safetensors")
            again = load(tmp_path / "q.safetensors")
            assert (again(x).storage == quantized(x).storage).all()
            assert again.summary() == quantized.summary()
            assert again.nbytes == quantized.nbytes
            assert (copy.deepcopy(quantized)(x).storage == quantized(x).storage).all()
    nn.save(networks["mlp"], tmp_path / "float.safetensors")
    with pytest.raises(DataError, match="no quantised network"):
        load(tmp_path / "float.safetensors")


def test_calibration_data_come_in_many_forms(networks: dict[str, nn.Module]) -> None:
    model, (x, y) = networks["mlp"], data("train")
    whole = quantize(model, x)
    loader = ug.data.DataLoader(ug.data.digits(), 100)
    for given in (x.numpy(), [x], [(x, y)], loader, (batch[0] for batch in loader)):
        assert quantize(model, given).summary() == whole.summary()
    pairs = compare(model, whole, ug.data.DataLoader(ug.data.digits("test"), 64))
    assert pairs == compare(model, whole, data("test"))
    assert "accuracy" in str(pairs)


def test_any_end_and_any_number_of_axes() -> None:
    """Networks may end with codes (behind a ReLU or a pooling), and dense layers take stacks of rows."""
    ug.manual_seed(2)
    rows, images = RNG.normal(size=(30, 5, 4)).astype(np.float32), RNG.normal(size=(30, 1, 4, 4)).astype(np.float32)
    ends: list[tuple[nn.Module, np.ndarray]] = [
        (nn.Linear(4, 3), rows),
        (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3), nn.ReLU()), rows),
        (nn.Sequential(nn.ReLU(), nn.Linear(4, 3), nn.Flatten()), rows),
        (nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(2)), images),
        (nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(1, 8, 1), nn.AvgPool2d(2), nn.ReLU()), images),
        (nn.Sequential(nn.Conv2d(1, 8, 3), nn.AdaptiveAvgPool2d(1), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)), images),
        (nn.Sequential(nn.AdaptiveAvgPool2d((None, 3)), nn.Conv2d(1, 2, 1)), images),
    ]
    for model, x in ends:
        wanted = model(x).detach().storage
        for weight, allowed in (("int8 per channel", 0.03), ("q8", 0.05), ("q16", 2e-4)):
            quantized = quantize(model, x, weight=weight)
            got = quantized(x)
            assert got.shape == wanted.shape
            assert np.abs(got.storage - wanted).max() < allowed * np.abs(wanted).max(), (model, weight)
            assert quantized(x[:0]).shape == (0, *wanted.shape[1:])
            assert quantized.summary()


def test_channels_of_zeros_with_a_bias_keep_it() -> None:
    """The scale of weights grows until the bias fits 32 bits."""
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    model[0].weight.storage[...] = [[1e-20, 0, 0], [0, 0, 0]]
    model[0].bias.storage[...] = [5.0, -3.0]
    x = RNG.normal(size=(50, 3)).astype(np.float32)
    for weight in ("int8 per channel", "int8 per tensor", "q16"):
        got = quantize(model, x, weight=weight)(x).storage
        assert np.abs(got - model(x).detach().storage).max() < 0.1
    model[0].weight.storage[...] = [[1e-12, -2e-12, 0], [0, 0, 0]]
    model[0].bias.storage[...] = 0.0
    quantized = quantize(model, x)
    assert np.abs(quantized.trace(x)[0][3].astype(int)).max() > 100  # small numbers take all codes as well
    nothing = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))
    for parameter in nothing.parameters():
        parameter.storage[...] = 0.0
    assert (quantize(nothing, x * 0)(x).storage == 0).all()


def test_networks_without_an_integer_form_are_named() -> None:
    x = RNG.normal(size=(10, 4)).astype(np.float32)
    images = RNG.normal(size=(4, 2, 5, 5)).astype(np.float32)

    def refused(model: nn.Module, message: str, data: Any = x, **options: Any) -> None:
        with pytest.raises(ArgumentError, match=message):
            quantize(model, data, **options)

    class Own(nn.Module):
        def forward(self, x: ug.Tensor) -> ug.Tensor:
            return x

    linear = nn.Linear(4, 4)
    refused(nn.Sequential(linear, nn.Sequential(nn.ReLU(), nn.GELU())), r"layer '1.1' is a GELU.*expected Linear")
    refused(nn.Sequential(linear, Own()), "layer '1' is a Own")
    refused(nn.Sequential(nn.ReLU()), "no Linear or Conv2d")
    refused(nn.Sequential(nn.BatchNorm1d(4), linear), "layer '0'.*does not stand directly behind")
    refused(nn.Sequential(linear, nn.ReLU(), nn.BatchNorm1d(4)), "layer '2'.*does not stand directly behind")
    refused(nn.Sequential(linear, nn.BatchNorm1d(4, track_running_stats=False)), "no running statistics")
    refused(nn.Sequential(linear, nn.BatchNorm1d(3)), "3 channels, '0' before it 4")
    refused(nn.Sequential(nn.Conv2d(2, 2, 2, padding="same")), "one side more", images)
    refused(linear, "no calibration data", None)
    refused(linear, "no calibration data", [])
    refused(linear, "no calibration data", np.zeros((0, 4), np.float32))
    refused(linear, "NaN or an infinity", np.full((3, 4), np.nan, np.float32))
    refused(linear, "weight='int4'", weight="int4")
    refused(linear, "activation='q8' beside", activation="q8")
    refused(linear, "activation='uint8': expected q8, q16", weight="q8", activation="uint8")
    refused(linear, "24 bits", weight=ug.Q(3, 20))
    refused(linear, "method='best'", method="best")


def test_sums_that_32_bits_do_not_hold_are_refused() -> None:
    wide = nn.Linear(70_000, 1, bias=False)
    wide.weight.storage[...] = 1.0
    x = np.stack([np.ones(70_000, np.float32), np.zeros(70_000, np.float32)])
    with pytest.raises(
        ArgumentError, match=r"sums over 70000 inputs may reach 2266950000, which an accumulator of 32 bits"
    ):
        quantize(wide, x)
    quantized = quantize(wide, x, weight="q8")
    assert quantized.layers[0].accumulator == "int32"  # 127 * 128 * 70000 < 2^31
    assert quantize(wide, x, weight="q16").layers[0].accumulator == "int64"


def test_bad_comparisons(networks: dict[str, nn.Module]) -> None:
    x, y = data("test")
    quantized = quantize(networks["mlp"], x)
    with pytest.raises(ArgumentError, match="expected those of the same model"):
        compare(networks["cnn"], quantized, (x, y))
    with pytest.raises(ArgumentError, match="with labels"):
        compare(networks["mlp"], quantized, x)
    with pytest.raises(ArgumentError, match=r"expected \[n, ...\] and \[n\]"):
        compare(networks["mlp"], quantized, (x, y[:3]))
    with pytest.raises(ArgumentError, match="no inputs"):
        compare(networks["mlp"], quantized, [])
    with pytest.raises(FormatError, match="NaN"):
        quantized(np.full((1, 64), np.nan, np.float32))
