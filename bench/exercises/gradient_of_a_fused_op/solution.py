"""The product rule twice: y is a product, and silu is one. With s = sigmoid(a), silu'(a) = s + a s (1 - s) = s (1 + a
(1 - s)).

Op by op, the forward pass would write sigmoid(a) and silu(a) to memory, and autograd would keep both for the backward
pass. The fused rule keeps the operands only. That is what `ulpgrad.fused` derives by itself from a traced function.
"""

import numpy as np


def forward(a, b):
    """a sigmoid(a) b."""
    return a / (1 + np.exp(-a)) * b


def backward(g, a, b):
    """Both gradients from the operands alone."""
    s = 1 / (1 + np.exp(-a))
    return g * b * s * (1 + a * (1 - s)), g * a * s
