"""How much a leaky split inflates a score."""
