"""What depends on the order of values: the first k, where a value enters, which are distinct."""
