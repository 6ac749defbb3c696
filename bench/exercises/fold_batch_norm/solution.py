"""y = factor (w x + b - mean) + beta = (factor w) x + (factor (b - mean) + beta): what stands before x is the weight,
the rest is the bias.

A pass over memory is gone at inference. Before quantization it matters twice: the weights that are rounded are then the
folded ones, whose filters differ in size as the factors do, and that is why each filter gets a scale of its own.
"""

import numpy as np


def fold(weight, bias, gamma, beta, mean, var, eps):
    """Scale each filter, and move what is constant into the bias."""
    factor = gamma / np.sqrt(var + eps)
    return weight * factor[:, None, None, None], (bias - mean) * factor + beta
