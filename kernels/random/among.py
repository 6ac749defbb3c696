"""Words as whole numbers of a range."""

from __future__ import annotations

import numpy as np

from ulpgrad.formats import Array
from ulpgrad.kernels import native


def among(words: Array, low: int, span: int) -> Array | None:
    """int64 low + words % span, wrapping, of uint32 words on the host: in one pass of C++. None without it, and where a word is
    at or above the largest multiple of span, so that it has to be drawn again."""
    if native.missing() is not None or words.__class__ is not np.ndarray or words.dtype != np.uint32:
        return None
    found: Array | None = native.module().integers_among(words, low % 2**64, span)
    return found
