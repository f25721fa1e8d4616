"""Configurations. `base` explains every key, the others change some of its values."""
