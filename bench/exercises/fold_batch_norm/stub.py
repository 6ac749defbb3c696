"""Write `fold(weight, bias, gamma, beta, mean, var, eps)`: a convolution that does what it and the batch norm after it
did.

Once a network is trained, batch norm uses fixed statistics, and for filter o it is

    y = gamma[o] * (c - mean[o]) / sqrt(var[o] + eps) + beta[o]

of the convolution's result c. Return (weight, bias) of a convolution whose result is y at once. `weight` has shape
(filters, channels, height, width); all others but eps have shape (filters,). Everything is float64.
"""


def fold(weight, bias, gamma, beta, mean, var, eps):
    """Return the new weight and the new bias."""
    return weight * 1.0, bias * 1.0
