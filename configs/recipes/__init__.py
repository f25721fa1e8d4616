"""Recipes that run as they are, each with its sources."""
