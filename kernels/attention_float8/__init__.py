"""Attention of 8-bit floats."""
