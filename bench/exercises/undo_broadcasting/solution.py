"""Sum over the axes that were put in front, then over those that had size 1, which stay as axes of size 1.

Copying and summing are each other's transposes: the gradient of a broadcast is a sum, and the gradient of a sum is a
broadcast. A graph that does this after every rule lets the rules themselves forget that broadcasting exists.
"""


def unbroadcast(g, shape):
    """Sum over everything that was repeated."""
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    ones = tuple(i for i, size in enumerate(shape) if size == 1)
    return g.sum(axis=ones, keepdims=True)
