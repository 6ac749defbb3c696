"""Random numbers from a counter: every value is a function of (key, counter, index), whoever computes it and in what order."""
