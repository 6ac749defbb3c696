"""Write `unbroadcast(g, shape)`: the gradient of an operand of shape `shape` that was broadcast to the shape of `g`.

In `y = x + b` with x of shape (3, 4) and b of shape (4,), every element of b is added to three elements of y. Given
`g`, the gradient with respect to y, return the gradient with respect to b, in the shape of b. `g` is a float64 array,
`shape` a tuple; NumPy's rules of broadcasting led from one to the other.
"""


def unbroadcast(g, shape):
    """Return an array of the given shape."""
    return g
