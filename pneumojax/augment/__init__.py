"""Augmentation of a batch on the device, one random key per image."""
