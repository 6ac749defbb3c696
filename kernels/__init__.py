"""The ladders: one folder per family of ops, each with its contract (`spec.py`) and its rungs. Nothing here knows Tensor."""
