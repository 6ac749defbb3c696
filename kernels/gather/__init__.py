"""Values along an axis by index, and their sums back."""
