"""What a ladder shows of its rungs: their source, what changed from the rung below, their instructions, the page."""
