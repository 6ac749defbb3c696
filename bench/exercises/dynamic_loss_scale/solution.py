"""The scale hovers just below the largest one that works: a skipped step now and then is what it costs to know where
that is.

Widening comes before the division. 6e-8 is float16's smallest number; a gradient of 2e-9 lives only because it was
multiplied by 32768, and in float32 it may be itself again. The scale stays a power of two, so that nothing is rounded
on the way.
"""

import numpy as np


def step(scale, good, grads, interval):
    """Skip and halve, or unscale and count."""
    if not np.isfinite(grads).all():
        return scale / 2, 0, None
    made = grads.astype(np.float32) / np.float32(scale)
    good += 1
    if good == interval:
        return scale * 2, 0, made
    return scale, good, made
