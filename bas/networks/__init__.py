"""The networks: one architecture of a space, or all of them at once in a supernet."""
