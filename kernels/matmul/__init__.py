"""Matrix products: matmul and linear."""
