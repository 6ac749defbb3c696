"""Normalisation: layer, root-mean-square and batch norm, each with its gradient."""
