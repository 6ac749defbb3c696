"""Products of integers, exact to the bit: matmul and convolution on integer units, in an accumulator that the caller chooses."""
