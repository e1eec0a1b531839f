"""The speech signal: waves, word times, acoustic features."""
