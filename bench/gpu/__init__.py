"""What only a GPU can say: its limits, and our kernels beside cuBLAS, cuDNN and torch's attention. `make gpu-check` runs it."""
