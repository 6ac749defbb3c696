"""Write `step(scale, good, grads, interval)`: one step of dynamic loss scaling.

Training in float16 multiplies the loss, and with it all gradients, by a large scale, so that small ones do not drown.
Too large a scale overflows; how much is possible changes in the course of training. So it is tried out:

- If any gradient is infinite or NaN, this step is skipped: the scale is halved, and the count of good steps begins
  again at 0.
- Otherwise the gradients are divided by the scale that they were made with, and the step counts as good; when
  `interval` good steps have come in a row, the scale is doubled, and the count begins again at 0.

`scale` is a float, `good` the number of good steps so far, `grads` a float16 array. Return (new scale, new count,
gradients): float32 gradients without the scale, or None for a step that is skipped.
"""


def step(scale, good, grads, interval):
    """Return (scale, good, gradients or None)."""
    return scale, good + 1, grads / scale
