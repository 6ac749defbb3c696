"""Maximum and average pooling to a given size, whose windows follow from it."""
