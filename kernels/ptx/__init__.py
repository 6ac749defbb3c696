"""A machine that executes compiled PTX on the host, instruction by instruction."""
