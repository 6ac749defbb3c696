"""Cross entropy of logits against class indices, softmax included."""
