"""Write `unfold(x, height, width, stride, padding)`: the matrix that turns a convolution into a matrix product.

`x` has shape (n, c, h, w). Its rows and columns get `padding` zeros on each side; then a filter of height x width is
laid on it at every `stride`-th place. The result has one row for each place (image by image, row by row) and one column
for each value under the filter (channel, then row, then column), so that

    unfold(x, ...) @ weight.reshape(o, -1).T

is the convolution with a weight of shape (o, c, height, width), as networks define it (the filter is not turned round).
"""

import numpy as np


def unfold(x, height, width, stride, padding):
    """Return an array of shape (n * oh * ow, c * height * width)."""
    n, c, h, w = x.shape
    return np.zeros((n * h * w, c * height * width))
