"""This block of a residual network makes three sweeps over memory, one per operation. Make it one.

    y = relu(x * scale + shift) + residual

`x`, `residual` and `y` are float32 of shape (rows, n), `scale` and `shift` of shape (n,). A NaN in x stays a NaN in y.
An element of `x` and of `residual` is to be read once, an element of `y` written once and never read: the checker
counts.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def block(x, scale, shift, residual, y):
    """Three sweeps: y goes to memory and comes back twice."""
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = x[i, j] * scale[j] + shift[j]
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            if y[i, j] < 0:
                y[i, j] = 0
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] += residual[i, j]
