"""The main job: search, retrain, compare with the baselines."""
