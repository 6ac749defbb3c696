"""Optimizer steps: one fused pass that reads the gradient and writes parameter and state in place."""
