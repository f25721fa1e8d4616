"""A run directory: its files, its checkpoints and its lock."""
