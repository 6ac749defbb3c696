"""A function with a gradient of its own: round to a grid forwards, pass the gradient straight through backwards."""

import ulpgrad as ug


class Quantize(ug.Function):
    """x rounded to multiples of `step`; the straight-through estimator lets training see past the rounding."""

    @staticmethod
    def forward(ctx, x, step):
        return ug.round(x / step) * step

    @staticmethod
    def backward(ctx, g):
        return g, None


x = ug.asarray([0.1, 0.26, -0.4, 0.74], requires_grad=True)
y = Quantize.apply(x, 0.25)
(y * y).sum().backward()
print("quantized:", y.tolist())
print("gradient: ", x.grad.tolist())
