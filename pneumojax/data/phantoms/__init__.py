"""Drawn radiographs, in the layout of Kaggle's data set."""
