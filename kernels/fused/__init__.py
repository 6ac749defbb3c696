"""Chains of elementwise ops as one op: one pass over memory."""
