"""Conversion with a choice of rounding and overflow, into any number system."""
