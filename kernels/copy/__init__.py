"""Copies between layouts, and what is made of them: joining, rolling, tiling."""

from __future__ import annotations

from ulpgrad.kernels.copy.into import copied, copy_into, joining, rolling, stacking, tiled
from ulpgrad.kernels.copy.triangle import triangle

__all__ = ["copied", "copy_into", "joining", "rolling", "stacking", "tiled", "triangle"]
