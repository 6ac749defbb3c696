"""Each tap of the filter sees the whole image, shifted: height x width slices fill the matrix, and no loop runs over
pixels.

Then the fastest kernel there is does the work. The price is memory: each value appears height x width times. Fast
convolutions keep the view and drop the copy: they address patches inside the image while they multiply, as this
project's do with planes of channels and an offset for each tap.
"""

import numpy as np


def unfold(x, height, width, stride, padding):
    """One slice for each tap."""
    n, c = x.shape[:2]
    oh = (x.shape[2] + 2 * padding - height) // stride + 1
    ow = (x.shape[3] + 2 * padding - width) // stride + 1
    padded = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    made = np.empty((n, oh, ow, c, height, width))
    for r in range(height):
        for s in range(width):
            seen = padded[:, :, r : r + stride * oh : stride, s : s + stride * ow : stride]
            made[..., r, s] = seen.transpose(0, 2, 3, 1)
    return made.reshape(n * oh * ow, -1)
