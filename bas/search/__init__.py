"""Search a space: train a supernet, then choose one architecture."""
