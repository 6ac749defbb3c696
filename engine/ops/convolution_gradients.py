"""A convolution and its two gradients as primitives that are each other's gradients, so that every order of them exists."""

from __future__ import annotations

from ulpgrad.differentiable import Primitive
from ulpgrad.kernels.spec import Op
from ulpgrad.ops.reduction import sum as total


def primitives(forward: Op, to_input: Op, to_weight: Op) -> tuple[Primitive, Primitive, Primitive]:
    """Of these ops: the convolution, and its gradients with respect to x and to weight."""
    convolved: Primitive = Primitive(
        forward,
        "x weight bias",
        gradients={
            "x": lambda g, weight, x_shape, stride, padding, dilation, groups: input_gradient(
                g, weight, size=x_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
            ),
            "weight": lambda g, x, weight_shape, stride, padding, dilation, groups: weight_gradient(
                g, x, size=weight_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
            ),
            "bias": lambda g: total(g, axis=(0, *range(2, g.ndim))),
        },
    )
    input_gradient: Primitive = Primitive(
        to_input,
        "g0 weight",
        gradients={
            "g0": lambda g, weight, stride, padding, dilation, groups: convolved(
                g, weight, None, stride=stride, padding=padding, dilation=dilation, groups=groups
            ),
            "weight": lambda g, g0, weight_shape, stride, padding, dilation, groups: weight_gradient(
                g0, g, size=weight_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
            ),
        },
    )
    weight_gradient: Primitive = Primitive(
        to_weight,
        "g0 x",
        gradients={
            "g0": lambda g, x, stride, padding, dilation, groups: convolved(
                x, g, None, stride=stride, padding=padding, dilation=dilation, groups=groups
            ),
            "x": lambda g, g0, x_shape, stride, padding, dilation, groups: input_gradient(
                g0, g, size=x_shape[2:], stride=stride, padding=padding, dilation=dilation, groups=groups
            ),
        },
    )
    return convolved, input_gradient, weight_gradient
