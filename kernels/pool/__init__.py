"""Maximum and average pooling over images, and their gradients."""
