"""Products of matrices in blocks that share powers of two."""
