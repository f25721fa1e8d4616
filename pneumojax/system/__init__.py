"""Devices, processes, signals, limits, atomic files, progress."""
