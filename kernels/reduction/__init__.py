"""Sums, extremes, counts and running totals along axes."""
