"""A run: its folder, its jobs, and the processes that share them."""
