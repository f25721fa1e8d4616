"""Measurements, run by hand: `python -m benchmarks.run NAME`. Nothing here is a test."""
