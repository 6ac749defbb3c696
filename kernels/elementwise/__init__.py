"""Elementwise ops: one table row per op; its reference, its NumPy, Numba and C++ kernels all follow from the row."""
