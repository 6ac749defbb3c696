"""Maximum and mean over windows of integer codes, for quantised networks."""
