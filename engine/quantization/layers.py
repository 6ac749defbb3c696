"""Layers of integers: each takes codes and gives codes, by integer kernels alone.

    sums  = sum over inputs of weight_code * input_code            int8 x uint8 -> int32, exact
    codes = clamp(round((sums + bias) * M / 2^s) + zero_point)     kernels/requantize; low = zero point where a ReLU is fused

Linear layers are one kernel for both, on a GPU convolutions too.

The integer bias is round(b / (s_in * s_w)) - z_in * sum(weight_code), so that the input's zero point costs nothing at run time;
padding is filled with the input's zero point, which stands for 0. Source: Jacob et al. 2018, section 2.2 and 2.3.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ulpgrad.device import module_of
from ulpgrad.formats import Affine, Array, Fixed, Format, as_format
from ulpgrad.kernels import native
from ulpgrad.kernels.integer import spec as integer
from ulpgrad.kernels.integer_pool import spec as pool
from ulpgrad.kernels.requantize.spec import integer_conv2d_requantized, integer_linear, requantize
from ulpgrad.kernels.spec import Op
from ulpgrad.nn import Module
from ulpgrad.ops import flatten
from ulpgrad.ops.pooling import to_output_size
from ulpgrad.ops.quantize import beside_codes
from ulpgrad.quantization.calls import padded, run
from ulpgrad.quantization.scale import fixed_multiplier
from ulpgrad.tensor import Tensor


class Sums:
    """int32 accumulators as the last codes of a network: value = code * scale, with a scale for each channel."""

    name, bits, storage = "int32 sums", 32, np.dtype(np.int32)

    def __init__(self, scale: Array, axis: int) -> None:
        self.scale, self.axis = scale, axis

    def __str__(self) -> str:
        return self.name

    def decode(self, storage: Any) -> Array:
        """Values in float32, rounded once, where the codes lie."""
        shape = [-1 if i == self.axis % storage.ndim else 1 for i in range(storage.ndim)]
        values: Array = (storage * beside_codes(self.scale.reshape(shape), storage)).astype(np.float32)
        return values


Codes = Affine | Fixed | Sums


def zero_code(form: Codes) -> int:
    """The code that stands for 0."""
    return int(form.zero_point) if isinstance(form, Affine) else 0


def code_range(form: Codes) -> tuple[int, int]:
    """The smallest and the largest code."""
    return (-(2**31), 2**31 - 1) if isinstance(form, Sums) else (form.min_code, form.max_code)


class IntegerLayer(Module):
    """Base of all: `source` and `target` are the formats of the codes that come in and go out."""

    source: Affine | Fixed
    target: Codes
    label: str = ""

    def forward(self, codes: Array) -> Array:
        raise NotImplementedError

    def saturated(self, codes: Array) -> int:
        """How many of the codes that these inputs give were clamped to the ends of the format."""
        return 0


class Product(IntegerLayer):
    """What Linear and Conv2d share: weights as codes, and sums that become codes.

    Buffers: `weight` (codes), `weight_scale` (float64, one or one per channel), `bias`, and per channel `multiplier` (absent
    where scales are powers of two) and `shift`.
    """

    weight: Tensor
    weight_scale: Tensor
    bias: Tensor
    multiplier: Tensor | None
    shift: Tensor
    channel_axis = -1

    def __init__(
        self,
        weight: Array,
        weight_format: Affine | Fixed,
        bias: Array,
        relu: bool,
        source: Affine | Fixed,
        target: Affine | Fixed | None,
    ) -> None:
        scale = np.asarray(weight_format.scale, dtype=np.float64)
        self.source, self.weight_format, self.relu = source, weight_format, relu
        per_channel = np.broadcast_to(scale, len(weight)).copy()
        multiplier: Array | None = None
        if isinstance(source, Affine):
            self.target = Sums(source.scale * per_channel, self.channel_axis) if target is None else target
            if isinstance(self.target, Affine):
                multiplier, shift = fixed_multiplier(source.scale * per_channel / self.target.scale)
            else:
                shift = np.zeros(len(weight), np.int32)
        else:
            assert isinstance(source, Fixed)
            assert isinstance(weight_format, Fixed)
            assert isinstance(target, Fixed)
            self.target = target
            surplus = source.fraction_bits + weight_format.fraction_bits - target.fraction_bits
            shift = np.full(len(weight), surplus, np.int32)
        buffers = {"weight": weight, "weight_scale": scale, "bias": bias, "multiplier": multiplier, "shift": shift}
        for name, values in buffers.items():
            self.register_buffer(name, None if values is None else Tensor(values, as_format(values.dtype)))

    @property
    def accumulator(self) -> str:
        """What sums are kept in: "int32" or "int64"."""
        return str(self.bias.dtype)

    def sums(self, codes: Array) -> Array:
        """Exact sums of products, without bias."""
        raise NotImplementedError

    def _codes(self, sums: Array, low: int, high: int, dtype: Format) -> Array:
        out: Array = run(
            requantize, sums, None if self.multiplier is None else self.multiplier.storage, self.shift.storage,
            self.bias.storage, axis=self.channel_axis % sums.ndim, zero_point=zero_code(self.target), low=low, high=high,
            ties="up" if isinstance(self.source, Affine) else "even", dtype=dtype,
        )  # fmt: skip
        return out

    def clamp(self) -> tuple[int, int]:
        """The smallest and the largest code that it gives."""
        low, high = code_range(self.target)
        return (zero_code(self.target) if self.relu else low), high

    def forward(self, codes: Array) -> Array:
        return self._codes(self.sums(codes), *self.clamp(), as_format(self.target.storage))

    def _at_once(self, op: Op, codes: Array, **settings: Any) -> Array:
        """By a kernel that writes codes instead of sums."""
        low, high = self.clamp()
        out: Array = run(
            op, codes, self.weight.storage, None if self.multiplier is None else self.multiplier.storage,
            self.shift.storage, self.bias.storage, accumulator=self.accumulator, zero_point=zero_code(self.target),
            low=low, high=high, ties="up" if isinstance(self.source, Affine) else "even",
            dtype=as_format(self.target.storage), **settings,
        )  # fmt: skip
        return out

    def saturated(self, codes: Array) -> int:
        low, high = code_range(self.target)
        if self.target.bits == 32:
            return 0
        free = self._codes(self.sums(codes), -(2**31), 2**31 - 1, as_format(np.int32))
        return int((free > high).sum()) + (0 if self.relu else int((free < low).sum()))

    def decoded_weight(self) -> Array:
        """What the weight codes stand for, in float64."""
        scale = self.weight_scale.storage
        return np.asarray(
            self.weight.storage * (scale.reshape(-1, *[1] * (self.weight.ndim - 1)) if scale.ndim else scale)
        )


class IntegerLinear(Product):
    """codes [..., in] -> codes [..., out]; weight codes [out, in]."""

    label = "linear"

    def sums(self, codes: Array) -> Array:
        out: Array = run(integer.integer_matmul, codes, self.weight.storage.T, accumulator=self.accumulator)
        return out

    def forward(self, codes: Array) -> Array:
        if native.missing() is not None or codes.ndim < 2:
            return super().forward(codes)
        return self._at_once(integer_linear, codes)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, {self.source} -> {self.target}"


class IntegerConv2d(Product):
    """codes [n, c, h, w] -> codes [n, o, oh, ow]; weight codes [o, c / groups, kh, kw]."""

    label = "conv2d"
    channel_axis = 1

    def __init__(self, *args: Any, settings: dict[str, Any]) -> None:
        super().__init__(*args)
        self.settings = settings

    def sums(self, codes: Array) -> Array:
        settings, value = self.settings, zero_code(self.source)
        if codes.__class__ is not np.ndarray:
            settings = {**settings, "pad": value}
        elif value and settings["padding"] != (0, 0):
            codes, settings = padded(codes, settings["padding"], value), {**settings, "padding": (0, 0)}
        out: Array = run(integer.integer_conv2d, codes, self.weight.storage, accumulator=self.accumulator, **settings)
        return out

    def forward(self, codes: Array) -> Array:
        if codes.__class__ is np.ndarray:
            return super().forward(codes)
        return self._at_once(integer_conv2d_requantized, codes, pad=zero_code(self.source), **self.settings)

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, {self.source} -> {self.target}"


class Passing(IntegerLayer):
    """A layer whose codes mean the same before and after."""

    def __init__(self, source: Affine | Fixed, settings: dict[str, Any]) -> None:
        self.source = self.target = source
        self.settings = settings

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())


class IntegerReLU(Passing):
    """Codes below that of zero become it."""

    label = "relu"

    def forward(self, codes: Array) -> Array:
        out: Array = module_of(codes).maximum(codes, codes.dtype.type(zero_code(self.source)))
        return out


class IntegerFlatten(Passing):
    label = "flatten"

    def forward(self, codes: Array) -> Array:
        out: Array = flatten(Tensor(codes, as_format(codes.dtype)), **self.settings).storage
        return out


class IntegerMaxPool2d(Passing):
    """The largest code of each window."""

    label = "max_pool2d"

    def forward(self, codes: Array) -> Array:
        out: Array = run(pool.integer_max_pool2d, codes, **self.settings)
        return out


class IntegerAvgPool2d(Passing):
    """The mean code of each window, rounded to the nearest."""

    label = "avg_pool2d"

    def forward(self, codes: Array) -> Array:
        ties = "up" if isinstance(self.source, Affine) else "even"
        out: Array = run(
            pool.integer_avg_pool2d, codes, padding_value=zero_code(self.source), ties=ties, **self.settings
        )
        return out


class IntegerAdaptiveAvgPool2d(Passing):
    """The mean code of each of `output_size` windows, rounded to the nearest."""

    label = "adaptive_avg_pool2d"

    def forward(self, codes: Array) -> Array:
        ties = "up" if isinstance(self.source, Affine) else "even"
        size = to_output_size(self.label, codes.shape, self.settings["output_size"])
        out: Array = run(pool.integer_adaptive_avg_pool2d, codes, output_size=size, ties=ties)
        return out


PASSING: dict[str, type[Passing]] = {
    c.label: c for c in (IntegerReLU, IntegerFlatten, IntegerMaxPool2d, IntegerAvgPool2d, IntegerAdaptiveAvgPool2d)
}
PRODUCTS: dict[str, type[Product]] = {c.label: c for c in (IntegerLinear, IntegerConv2d)}
