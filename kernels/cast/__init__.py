"""Conversion between formats: one rounding, from any format to any other."""

from __future__ import annotations

from ulpgrad.kernels.cast.convert import convert

__all__ = ["convert"]
