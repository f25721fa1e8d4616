"""Hostile input: a driver that anyone can run longer, see `run.py`."""
