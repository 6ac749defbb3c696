"""Convolution of volumes and its two gradients."""
