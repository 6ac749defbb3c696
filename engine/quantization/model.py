"""QuantizedModel: a network whose layers hand integer codes on; floats only go in and come out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ulpgrad import io
from ulpgrad.device import moved_to
from ulpgrad.errors import ArgumentError, DataError, UlpgradError
from ulpgrad.formats import Affine, Array, Fixed, Q, float32
from ulpgrad.kernels import gpu
from ulpgrad.nn import Module, ModuleList
from ulpgrad.ops.common import as_tensor
from ulpgrad.ops.quantize import quantize, to_format
from ulpgrad.quantization.calls import Call, logged
from ulpgrad.quantization.layers import PASSING, PRODUCTS, Codes, IntegerLayer, Passing, Product, Sums
from ulpgrad.tensor import Tensor

METADATA = "ulpgrad.quantized"


class QuantizedModel(Module):
    """Made by `quantize`. Called with floats it gives floats: x -> codes -> layer by layer -> codes -> values.

    Attributes: `names` and `layers`, in order; `source`, the format of the first codes; `target`, that of the last;
    `input_shape`, of one input.
    """

    def __init__(
        self, names: list[str], layers: list[IntegerLayer], source: Affine | Fixed, input_shape: tuple[int, ...]
    ) -> None:
        self.names, self.layers = names, ModuleList(layers)
        self.source, self.input_shape = source, tuple(input_shape)

    @property
    def parts(self) -> list[IntegerLayer]:
        """The layers as what they are."""
        return [layer for layer in self.layers if isinstance(layer, IntegerLayer)]

    @property
    def target(self) -> Codes:
        return self.parts[-1].target

    @property
    def nbytes(self) -> int:
        """Bytes of weights, biases, multipliers, shifts and scales."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def encode(self, x: Any) -> Array:
        """The codes of inputs: the only rounding of floats there is. FormatError for NaN."""
        codes: Array = quantize(as_tensor(x).detach(), self.source).storage
        return codes

    def run(self, codes: Array) -> Array:
        """The integer network: codes of inputs [n, ...] -> codes of results. No float takes part."""
        for layer in self.parts:
            codes = layer(codes)
        return codes

    def forward(self, x: Any) -> Tensor:
        codes, target = self.run(self.encode(x)), self.target
        if isinstance(target, Sums):
            return Tensor(target.decode(codes), float32)
        return to_format(Tensor(codes, target), float32)

    def trace(self, x: Any) -> list[tuple[str, IntegerLayer, Array, Array]]:
        """Each layer's name, itself, the codes that it gets and those that it gives."""
        codes, found = self.encode(x), []
        for name, layer in zip(self.names, self.parts, strict=True):
            given, codes = codes, layer(codes)
            found.append((name, layer, given, codes))
        return found

    def kernels(self, batch: int = 1) -> list[tuple[str, list[Call]]]:
        """The kernel calls of each layer for a batch of that size: which op, which rung, operands of which formats."""
        place = next(iter(self.state_dict().values())).device
        codes = moved_to(np.zeros((batch, *self.input_shape), self.source.storage), place)
        found = []
        for name, layer in zip(self.names, self.parts, strict=True):
            with logged() as calls:
                codes = layer(codes)
            found.append((name, calls))
        return found

    def summary(self, batch: int = 1) -> str:
        """A table: each layer's formats, accumulator, multipliers and the kernels that a batch of that size runs on."""
        rows = [("layer", "kind", "weight", "sums", "scaled by", "codes", "kernels"),
                ("", "quantize", "", "", "", self.source.name, "")]  # fmt: skip
        for (name, calls), layer in zip(self.kernels(batch), self.parts, strict=True):
            weight = sums = scaled = ""
            if isinstance(layer, Product):
                shape = "x".join(map(str, layer.weight.shape))
                channels = " per channel" if layer.weight_scale.ndim else ""
                weight, sums = f"{shape} {layer.weight.dtype}{channels}", layer.accumulator
                scaled = _scaling(layer)
            text = layer.label + (" + relu" if isinstance(layer, Product) and layer.relu else "")
            ran = ", ".join(f"{c.op} {c.rung} ({' x '.join(c.operands[:2])})" for c in calls)
            rows.append((name, text, weight, sums, scaled, layer.target.name, ran))
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


def _scaling(layer: Product) -> str:
    """What sums are multiplied by to become codes."""
    shifts = gpu.to_host(layer.shift.storage)
    if layer.multiplier is None:
        return f"2^-{int(shifts[0])}" if shifts.any() else "1"
    factors = np.ldexp(gpu.to_host(layer.multiplier.storage).astype(np.float64), -shifts.astype(np.int64))
    low, high = f"{factors.min():.3g}", f"{factors.max():.3g}"
    return f"M/2^s = {low}" if low == high else f"M/2^s = {low} .. {high}"


def save(model: QuantizedModel, path: str | os.PathLike[str]) -> None:
    """Write a quantised network to a safetensors file: codes as tensors, formats and settings as JSON in its metadata."""
    layers = [
        {"name": name, "kind": layer.label, "target": _described(layer.target), **_settings(layer)}
        for name, layer in zip(model.names, model.parts, strict=True)
    ]
    about = {"source": _described(model.source), "input_shape": model.input_shape, "layers": layers}
    io.save(path, model.state_dict(), {METADATA: json.dumps(about)})


def load(path: str | os.PathLike[str]) -> QuantizedModel:
    """Read what `save` wrote. DataError for a file that is something else."""
    try:
        about = json.loads(io.load_metadata(path)[METADATA])
        tensors = {name: t.storage for name, t in io.load(path).items()}
        source = first = _format(about["source"])
        layers: list[IntegerLayer] = []
        for i, entry in enumerate(about["layers"]):
            layers.append(_layer(entry, source, tensors, f"layers.{i}."))
            source = _format(entry["target"])
        names = [entry["name"] for entry in about["layers"]]
        assert first is not None
        return QuantizedModel(names, layers, first, tuple(about["input_shape"]))
    except (KeyError, TypeError, ValueError, AssertionError) as error:
        if isinstance(error, UlpgradError) and not isinstance(error, ArgumentError):
            raise
        raise DataError(
            f"{path}: no quantised network, or not a whole one ({type(error).__name__}: {error})"
        ) from error


def _settings(layer: IntegerLayer) -> dict[str, Any]:
    if isinstance(layer, Passing):
        return {"settings": layer.settings}
    assert isinstance(layer, Product)
    return {"relu": layer.relu, "weight": _described(layer.weight_format), "settings": getattr(layer, "settings", None)}


def _described(form: Any) -> Any:
    """A format as JSON: None for sums, whose scale follows from the layer's own."""
    if isinstance(form, Fixed):
        return {
            "kind": "fixed",
            "integer_bits": form.integer_bits,
            "fraction_bits": form.fraction_bits,
            "signed": form.signed,
        }
    if isinstance(form, Affine):
        return {"kind": "affine", "base": form.base, "scale": form.scale.tolist(), "zero_point": form.zero_point.tolist(),
                "axis": form.axis}  # fmt: skip
    return None


def _format(given: Any) -> Any:
    if given is None:
        return None
    if given["kind"] == "fixed":
        return Q(given["integer_bits"], given["fraction_bits"], given["signed"])
    return Affine(given["base"], given["scale"], given["zero_point"], given["axis"])


def _layer(entry: Mapping[str, Any], source: Any, tensors: Mapping[str, Array], prefix: str) -> IntegerLayer:
    settings = {k: tuple(v) if isinstance(v, list) else v for k, v in (entry["settings"] or {}).items()}
    if entry["kind"] in PASSING:
        return PASSING[entry["kind"]](source, settings)
    more = {"settings": settings} if entry["kind"] == "conv2d" else {}
    return PRODUCTS[entry["kind"]](
        tensors[prefix + "weight"], _format(entry["weight"]), tensors[prefix + "bias"], entry["relu"], source,
        _format(entry["target"]), **more,
    )  # fmt: skip


__all__ = ["QuantizedModel", "load", "save"]
