"""Trained networks in integers: calibration, conversion to int8 or fixed point, inference on integer kernels, comparison."""

from ulpgrad.quantization.calibrate import METHODS, calibrate, calibrate_fixed
from ulpgrad.quantization.compare import Comparison, LayerComparison, compare
from ulpgrad.quantization.convert import quantize
from ulpgrad.quantization.model import QuantizedModel, load, save

__all__ = [
    "METHODS",
    "Comparison",
    "LayerComparison",
    "QuantizedModel",
    "calibrate",
    "calibrate_fixed",
    "compare",
    "load",
    "quantize",
    "save",
]
