"""Write `affine_matmul(a, b, za, zb, product)`: the sum over k of (a[i, k] - za) * (b[k, j] - zb), as whole numbers.

Quantized tensors keep codes with a zero point: the code `za` stands for 0. `a` holds uint8 codes, shape (m, k), `b`
int8 codes, (k, n). The integer unit, `product(a, b)`, multiplies matrices of uint8 by int8, and nothing else: a - za
would need 9 bits. Call it once, with the codes as they are, and take the zero points out of its int32 result.
"""


def affine_matmul(a, b, za, zb, product):
    """Return an integer array of shape (m, n)."""
    return product(a, b)
