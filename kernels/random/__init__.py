"""Random numbers from a counter: every value is a function of key, counter and index, whoever computes it and when."""
