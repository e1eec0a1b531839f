"""What is trained: an architecture of a space as one network, all architectures of a space as another."""
