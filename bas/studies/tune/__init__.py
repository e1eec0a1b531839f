"""Optuna over blocks and settings: an independent baseline of the search."""
