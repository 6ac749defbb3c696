"""Kahan's summation: (t - total) is what arrived of y, so (t - total) - y is what did not, with its sign turned. It is
exact as long as the sum is larger than the value that is added, and the error stays near one unit however many
values there are.

Where terms of both signs cancel, Neumaier's variant asks which of the two operands was larger. A sum in pieces
(pairwise) is cheaper and often enough: its error grows with log n. And no compiler may treat floats as real numbers
here: `fastmath` turns all of this back into a plain sum.
"""

from ulpgrad.kernels.numba_jit import jit


@jit()
def total(x, out):
    """The sum, with what each addition lost carried along."""
    total = 0.0
    lost = 0.0
    for i in range(len(x)):
        y = x[i] - lost
        t = total + y
        lost = (t - total) - y
        total = t
    out[0] = total
