"""Softmax and its logarithm along one axis, with their gradients."""
