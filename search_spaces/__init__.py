"""Search spaces as Python files; each defines `space`, and `task` when it is not emotion recognition."""
