"""What policies know of ops, by name."""

from __future__ import annotations

# Products, whose kernels accumulate in float32: operands go to the low format.
LOW = frozenset({"matmul", "linear", "conv2d", "conv2d_max_pool", "attention"})
# Sums and exponentials, which need range or many digits: 16-bit operands go to float32. All other ops follow their operands.
WIDE = frozenset({
    "sum", "prod", "mean", "var", "cumulative_sum", "cumulative_prod", "softmax", "log_softmax", "layer_norm", "rms_norm",
    "batch_norm", "cross_entropy", "nll_loss", "mse_loss", "bce_with_logits",
})  # fmt: skip
LOSSES = frozenset({"cross_entropy", "nll_loss", "mse_loss", "bce_with_logits"})
# Results that a Policy leaves alone: losses, sums (of losses, mostly; a mean that enters a product is rounded there), and
# what is no arithmetic.
KEPT = LOSSES | {"sum", "prod", "mean", "var", "cumulative_sum", "cumulative_prod", "log_softmax", "cast"}
# Results that are values of the operands: on the grid if those are.
SELECTS = frozenset({
    "relu", "maximum", "minimum", "where", "max", "min", "max_pool2d", "adaptive_max_pool2d", "positive",
})  # fmt: skip
# The axis along which blocks lie, which is the one a product sums over. Per product: its operands, then for the gradient
# of each operand the incoming gradient and the other operand.
BLOCK_AXES = {
    "linear": ((-1, -1), (-1, 0), (0, 0)),
    "matmul": ((-1, -2), (-1, -1), (-2, -2)),
    "conv2d": ((1, 1), (1, 0), (0, 0)),
}
# How these are products of matrices, whose blocks lie along the summed axis: per product, whether its operands change places, and
# whether the left and the right matrix are then transposed.
IN_BLOCKS = {
    "linear": ((False, False, True), (False, False, False), (False, True, False)),
    "matmul": ((False, False, False), (False, False, True), (True, True, False)),
}

ROLES = ("weight", "bias", "activation", "gradient", "accumulate", "update")
