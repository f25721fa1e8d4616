"""CLAIM and TRIPOD+AI, filled from a run: reporting.md."""
