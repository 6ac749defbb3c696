"""Convolution of volumes and its gradients, for floats; in other number systems volumes are images (`convolution_axes`)."""

from __future__ import annotations

from ulpgrad import dispatch
from ulpgrad.kernels.conv3d import spec
from ulpgrad.ops.convolution_gradients import primitives
from ulpgrad.tensor import Tensor

volumes, volumes_input_gradient, volumes_weight_gradient = primitives(
    spec.conv3d, spec.conv3d_input_gradient, spec.conv3d_weight_gradient
)


def are_whole(*operands: Tensor | None) -> bool:
    """Whether these ops take the operands: floats. Policies and pins are for the convolution of images, whose places
    and rungs they name."""
    if dispatch.state.policies or any(dispatch.is_pinned(n) for n in ("conv2d", "conv2d_input_gradient")):
        return False
    given = [t for t in operands if t is not None]
    return all(t.dtype.kind == "float" and not t.dtype.routed for t in given)
