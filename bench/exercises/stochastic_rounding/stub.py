"""Write `round_stochastic(x, step, u)`: each value to a multiple of `step`, up or down by chance, so that the mean is
right.

Rounded to nearest, a weight of 1 that gets updates of 0.001 in a format with steps of 1/256 never moves. Rounded by
chance it moves now and then, and by the right amount on average.

`x` is float64 of any shape, and `u`, of the same shape, holds uniform random numbers in [0, 1). Round the size of x and
put the sign back: a size that lies the fraction f of a step above a multiple goes up to the next if f + u >= 1, else
down. The project's own rounding draws like this, so results can be compared bit by bit.
"""

import numpy as np


def round_stochastic(x, step, u):
    """Return multiples of step."""
    return np.rint(x / step) * step
