"""Helpers for any room: files that are never half written, progress bars, devices, versions."""
