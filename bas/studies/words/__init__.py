"""Acoustic word embeddings against raw frames and controls, alone and with text."""
