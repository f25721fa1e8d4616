"""Recipes that people can run as they are: both stages by one command, each with its source."""
