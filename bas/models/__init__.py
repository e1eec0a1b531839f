"""Models that are taken away: a folder that predicts speech without the run and the corpus that it came from."""
