"""Convolution of volumes and its gradients: three ops that are each other's gradients, so every order exists. They are for
floats; in other number systems volumes are images (`convolution_axes`)."""

from __future__ import annotations

from ulpgrad import dispatch
from ulpgrad.differentiable import Primitive
from ulpgrad.kernels.conv3d import spec
from ulpgrad.ops.reduction import sum as total
from ulpgrad.tensor import Tensor

volumes: Primitive = Primitive(
    spec.conv3d,
    "x weight bias",
    gradients={
        "x": lambda g, weight, x_shape, stride, padding, dilation, groups: volumes_input_gradient(
            g, weight, size=x_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "weight": lambda g, x, weight_shape, stride, padding, dilation, groups: _weight_gradient(
            g, x, size=weight_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "bias": lambda g: total(g, axis=(0, 2, 3, 4)),
    },
)
volumes_input_gradient: Primitive = Primitive(
    spec.conv3d_input_gradient,
    "g0 weight",
    gradients={
        "g0": lambda g, weight, stride, padding, dilation, groups: volumes(
            g, weight, None, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "weight": lambda g, g0, weight_shape, stride, padding, dilation, groups: _weight_gradient(
            g0, g, size=weight_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
    },
)
_weight_gradient: Primitive = Primitive(
    spec.conv3d_weight_gradient,
    "g0 x",
    gradients={
        "g0": lambda g, x, stride, padding, dilation, groups: volumes(
            x, g, None, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        "x": lambda g, g0, x_shape, stride, padding, dilation, groups: volumes_input_gradient(
            g0, g, size=x_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
    },
)


def are_whole(*operands: Tensor | None) -> bool:
    """Whether these ops take the operands: floats. Policies and pins are for the convolution of images, whose places
    and rungs they name."""
    if dispatch.state.policies or any(dispatch.is_pinned(n) for n in ("conv2d", "conv2d_input_gradient")):
        return False
    given = [t for t in operands if t is not None]
    return all(t.dtype.kind == "float" and not t.dtype.routed for t in given)
