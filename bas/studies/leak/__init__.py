"""What a leak of the split is worth."""
