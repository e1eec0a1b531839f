"""What is heard: the wave, its words, its acoustics."""
