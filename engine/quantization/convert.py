"""From a trained network to one of integers: fold, watch activations on calibration data, choose formats, encode weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulpgrad.autograd import no_grad
from ulpgrad.errors import ArgumentError, FormatError
from ulpgrad.formats import Affine, Array, Fixed, Q, as_format, float32
from ulpgrad.nn import Module
from ulpgrad.ops import astype
from ulpgrad.ops.common import as_tensor
from ulpgrad.quantization.calibrate import PERCENTILE, calibrate, calibrate_fixed
from ulpgrad.quantization.fold import Step, fold
from ulpgrad.quantization.layers import PASSING, PRODUCTS, IntegerLayer, Product, code_range, zero_code
from ulpgrad.quantization.model import QuantizedModel
from ulpgrad.quantization.scale import largest_sums
from ulpgrad.tensor import Tensor

WEIGHTS = ("int8 per channel", "int8 per tensor", "q8", "q16")
ACTIVATIONS = ("uint8", "int8", "q8", "q16")
WIDEST = 16  # bits of a code: what integer kernels multiply
BIAS_BITS = {8: 30, 16: 46}  # that a bias may take beside codes of weights of that storage
WORDS = {"q8": 8, "q16": 16}
LAST_BITS = 32  # of a fixed-point network's results


@dataclass(frozen=True)
class Choice:
    """What formats a network gets: affine ones, or fixed point by word length or as given."""

    per_channel: bool = False
    weight: Fixed | int | None = None  # a format or a word length; None: affine
    activation: Fixed | int | str = "uint8"
    method: str = "max"
    weight_method: str = "max"
    percentile: float = PERCENTILE

    @property
    def fixed(self) -> bool:
        return self.weight is not None

    def of_activations(self, values: Array) -> Affine | Fixed:
        if isinstance(self.activation, Fixed):
            return self.activation
        if isinstance(self.activation, int):
            return calibrate_fixed(values, bits=self.activation, method=self.method, percentile=self.percentile)
        return calibrate(
            values, method=self.method, symmetric=False, base=self.activation, percentile=self.percentile
        )  # fmt: skip

    def of_weights(self, values: Array) -> Affine | Fixed:
        if isinstance(self.weight, Fixed):
            return self.weight
        if isinstance(self.weight, int):
            return calibrate_fixed(values, bits=self.weight, method=self.weight_method, percentile=self.percentile)
        return calibrate(
            values, method=self.weight_method, axis=0 if self.per_channel else None, percentile=self.percentile
        )


def quantize(
    model: Module,
    data: Any,
    *,
    weight: Any = "int8 per channel",
    activation: Any = None,
    method: str = "max",
    weight_method: str = "max",
    percentile: float = PERCENTILE,
) -> QuantizedModel:
    """A network that computes in integers alone, from the first quantisation to the last dequantisation.

    - `model`: Sequentials of Linear, Conv2d, BatchNorm (behind one of these two, folded into it), ReLU, MaxPool2d,
      AvgPool2d, AdaptiveAvgPool2d,
      Flatten and Dropout (left out). It stays as it is.
    - `data`: inputs to calibrate activations on, a few hundred: a tensor or array [n, ...], or batches of them or of tuples
      that begin with them (a DataLoader). All are looked at together.
    - `weight`: "int8 per channel", "int8 per tensor" (symmetric, 127 steps to the largest), or fixed point: "q8", "q16" (words of
      that length, a radix point for each layer) or one format such as Q(2, 13) for all.
    - `activation`: "uint8" (default) or "int8", one scale and zero point for each layer's results; beside fixed-point weights
      "q8", "q16" (default: as the weights) or one format.
    - `method`, `weight_method`: calibration by "max", "percentile" or "mse", see `calibrate`.

    Results of the last layer leave as its 32-bit sums times their scale. Raises ArgumentError for a layer without an integer
    form (named), without calibration data, for sums that 32 bits might not hold, or an option that is not there.
    """
    choice = _choice(weight, activation, method, weight_method, percentile)
    steps = fold(model)
    if not any(step.multiplies for step in steps):
        raise ArgumentError(f"quantize: {type(model).__name__} has no Linear or Conv2d: there is nothing to quantise")
    xs = inputs_of(data)
    source = first = choice.of_activations(_together(xs))
    shape = xs[0].shape[1:]
    layers: list[IntegerLayer] = []
    with no_grad():
        for i, step in enumerate(steps):
            xs = [step.run(x) for x in xs]
            if step.multiplies:
                last = i == len(steps) - 1 and not step.relu
                layers.append(_product(step, choice, source, _together(xs), last))
            else:
                layers.append(PASSING[step.kind](source, step.settings))
            if not isinstance(layers[-1].target, (Affine, Fixed)):
                break
            source = layers[-1].target
    return QuantizedModel([step.name for step in steps], layers, first, shape)


def inputs_of(data: Any) -> list[Tensor]:
    """Batches of inputs in float32. ArgumentError if there are none."""
    if isinstance(data, (Tensor, np.ndarray)):
        batches: Iterable[Any] = [data]
    elif data is None or not isinstance(data, Iterable):
        raise ArgumentError(
            f"quantize: no calibration data ({data!r}): give a few hundred inputs as a tensor or as batches; activations are "
            "measured on them"
        )
    else:
        batches = data
    found = []
    for batch in batches:
        x = as_tensor(batch[0] if isinstance(batch, (tuple, list)) else batch).detach()
        if x.ndim < 1:
            raise ArgumentError(f"quantize: calibration data of shape {x.shape}: expected batches [n, ...]")
        if x.size:
            found.append(astype(x, float32, copy=False))
    if not found:
        raise ArgumentError("quantize: no calibration data: there was no input in it; give a few hundred")
    return found


def _choice(weight: Any, activation: Any, method: str, weight_method: str, percentile: float) -> Choice:
    rest: dict[str, Any] = {"method": method, "weight_method": weight_method, "percentile": percentile}
    if weight in ("int8 per channel", "int8 per tensor"):
        chosen = "uint8" if activation is None else activation
        if chosen not in ("uint8", "int8"):
            raise ArgumentError(f"quantize: activation={activation!r} beside weight={weight!r}: expected uint8 or int8")
        return Choice(weight == "int8 per channel", None, chosen, **rest)
    word = _word("weight", weight, WEIGHTS)
    return Choice(False, word, word if activation is None else _word("activation", activation, ACTIVATIONS[2:]), **rest)


def _word(what: str, given: Any, expected: tuple[str, ...]) -> Fixed | int:
    """A fixed-point format, or the word length of one to be found."""
    if isinstance(given, str) and given in WORDS:
        return WORDS[given]
    try:
        form = as_format(given)
    except FormatError:
        form = None
    if not isinstance(form, Fixed):
        raise ArgumentError(
            f"quantize: {what}={given!r}: expected {', '.join(expected)}, or a fixed-point format such as Q(2, 13)"
        )
    if form.bits > WIDEST or form.storage == np.uint16:
        raise ArgumentError(
            f"quantize: {what}={form}: {form.bits} bits, stored as {form.storage}: integer kernels multiply int8, uint8 and int16"
        )
    return form


def _together(batches: list[Tensor]) -> Array:
    return np.concatenate([x.storage.reshape(-1) for x in batches])


def _product(step: Step, choice: Choice, source: Affine | Fixed, results: Array, last: bool) -> Product:
    """The integer layer of a step whose results were these."""
    assert step.weight is not None
    assert step.bias is not None
    form = choice.of_weights(step.weight)
    target: Affine | Fixed | None = None
    if isinstance(source, Affine):
        assert isinstance(form, Affine)
        form = _holding(step.weight, step.bias, source, form)
        target = None if last else choice.of_activations(results)
        unit = source.scale * form.scale
    else:
        assert isinstance(form, Fixed)
        if isinstance(choice.weight, int):
            form = _holding_fixed(step.bias, source, form)
        unit = np.asarray(source.scale * form.scale)
        point = source.fraction_bits + form.fraction_bits
        target = calibrate_fixed(results, bits=LAST_BITS) if last else _fixed(choice.of_activations(results))
        if target.fraction_bits > point:  # sums have no more
            target = Q(target.bits - target.signed - point, point, target.signed)
    weight = form.encode(step.weight)
    bias = np.rint(step.bias / unit)
    low, high = (code - zero_code(source) for code in code_range(source))
    bits = _accumulator(step, choice, weight, bias, low, high)
    inward = [int(b) - zero_code(source) * int(w.sum(dtype=np.int64)) for b, w in zip(bias, weight, strict=True)]
    wrapped = [(b + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1)) for b in inward]
    settings = {"settings": step.settings} if step.kind == "conv2d" else {}
    try:
        return PRODUCTS[step.kind](
            weight, form, np.array(wrapped, dtype=f"i{bits // 8}"), step.relu, source, target, **settings
        )
    except ArgumentError as error:
        raise ArgumentError(f"quantize: layer {step.name!r}: {error}") from None


def _fixed(form: Affine | Fixed) -> Fixed:
    assert isinstance(form, Fixed)
    return form


def _holding(weight: Array, bias: Array, source: Affine, form: Affine) -> Affine:
    """Weight scales, made larger where a channel's weights are so small beside its bias that this would not fit 32 bits. A
    channel of zeros takes the largest of the others."""
    some = weight.reshape(len(weight), -1).any(1)
    if form.axis is not None and some.any() and not some.all():
        form = Affine(form.base, np.where(some, form.scale, form.scale[some].max()), form.zero_point, form.axis)
    least = np.abs(bias) / (float(source.scale) * 2.0 ** BIAS_BITS[8])
    scale = np.maximum(form.scale, least if form.axis is not None else least.max())
    return form if (scale == form.scale).all() else Affine(form.base, scale, form.zero_point, form.axis)


def _holding_fixed(bias: Array, source: Fixed, form: Fixed) -> Fixed:
    """The same for a radix point: fewer fraction bits where the bias would not fit beside so many."""
    _, exponent = np.frexp(np.abs(bias).max())
    most = BIAS_BITS[form.storage.itemsize * 8] - int(exponent) - source.fraction_bits
    return form if form.fraction_bits <= most else Q(form.bits - form.signed - most, most, form.signed)


def _accumulator(step: Step, choice: Choice, weight: Array, bias: Array, low: int, high: int) -> int:
    """The width of sums, in bits: 32 where they always fit, else 64 for fixed point; ArgumentError where neither will do."""
    if not (np.abs(bias) < 2.0**62).all():
        raise ArgumentError(
            f"quantize: layer {step.name!r}: its bias does not fit 64 bits beside weights in this format"
        )
    largest = largest_sums(weight, bias.astype(np.int64), low, high)
    if largest < 2**31 and weight.dtype.itemsize == 1:
        return 32
    if choice.fixed and largest < 2**62:
        return 64
    raise ArgumentError(
        f"quantize: layer {step.name!r}: sums over {weight[0].size} inputs may reach {largest}, which an accumulator of "
        f"{'64' if choice.fixed else '32'} bits does not hold: split the layer, or take fewer bits"
    )


__all__ = ["ACTIVATIONS", "WEIGHTS", "inputs_of", "quantize"]
