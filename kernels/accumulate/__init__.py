"""Sums and products whose accumulator has a chosen float format: what low-precision accumulation does to a result."""
