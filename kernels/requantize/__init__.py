"""Accumulators of integer products as narrow codes again, for quantised networks."""
