"""Rows of a table by index, and the gradient that adds rows back."""
