"""Files that are never half written, progress bars, devices, versions: what any room may need."""
