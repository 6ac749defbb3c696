"""Write the two halves of SwiGLU, the gated unit of today's transformers: y = silu(a) * b, with silu(a) = a *
sigmoid(a).

`forward(a, b)` returns y; `backward(g, a, b)` returns the gradients with respect to a and b, given `g`, the gradient
with respect to y. All are float64 arrays of the same shape. Nothing is kept from the forward pass but a and b: the
sigmoid is computed again, which costs less than fetching it from memory.

The checker compares with what autograd makes of the plain ops.
"""

import numpy as np


def forward(a, b):
    """Return silu(a) * b."""
    return a * b


def backward(g, a, b):
    """Return the gradients with respect to a and b."""
    return np.zeros_like(a), np.zeros_like(b)
