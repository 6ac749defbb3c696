"""Write `multiply(a, b)`: the product of fixed-point numbers, element by element.

`a` and `b` are int16 arrays of the same shape with codes of Q7.8: the code c means c / 256, from -128 up to
127.99609375. Return the int16 codes of the products: rounded to the nearest code, a value exactly between two to the
even one, and saturated: what is beyond the ends becomes the end.
"""

import numpy as np


def multiply(a, b):
    """Return the Q7.8 codes of a * b."""
    return (a * b).astype(np.int16)
