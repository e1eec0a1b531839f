"""Optuna over blocks and settings: an independent baseline for the search."""
