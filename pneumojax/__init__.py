"""Pneumothorax segmentation in chest radiographs, in JAX; `pneumojax.main` is the program."""

__version__ = '0.1.0'
