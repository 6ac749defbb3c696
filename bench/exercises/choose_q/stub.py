"""Write `choose(values, bits)`: the split of a fixed-point number that fits these values best.

Q(m, n) has a sign bit, m bits before the binary point and n after it: `bits = 1 + m + n`. Its values are the multiples
of 2^-n from -2^m up to 2^m - 2^-n. A value is rounded to the nearest of them (ties to even), and saturates beyond the
ends.

Return (m, n): with as many bits after the point as possible, so that none of the `values` (a float64 array) saturates.
There always is one. `ulpgrad formats q3.4` draws such a format.
"""


def choose(values, bits):
    """Return (m, n) with 1 + m + n == bits."""
    m = bits - 1
    return m, 0
