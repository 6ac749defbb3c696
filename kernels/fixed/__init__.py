"""Arithmetic on the codes of fixed-point numbers: exact integers, cut to a result format in one step."""

from __future__ import annotations

from ulpgrad.kernels.fixed.convert import requantize

__all__ = ["requantize"]
