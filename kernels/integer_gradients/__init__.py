"""The two gradients of an integer convolution, in integers."""
