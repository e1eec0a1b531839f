"""Search a space: a supernet is trained, then one architecture is chosen."""
