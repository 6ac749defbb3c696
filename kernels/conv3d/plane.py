"""What the kernels of volumes leave to those of images."""

from __future__ import annotations

from typing import Any

from ulpgrad.formats import Format
from ulpgrad.kernels.conv.geometry import Triple
from ulpgrad.kernels.registry import Request


def plane(stride: Triple, padding: Triple, dilation: Triple, groups: int) -> dict[str, Any]:
    """The parameters of conv2d for a slice."""
    return {"stride": stride[1:], "padding": padding[1:], "dilation": dilation[1:], "groups": groups}


def format_of(request: Request) -> Format:
    """The one format of a call's operands."""
    form = request.formats[0]
    assert form is not None
    return form
