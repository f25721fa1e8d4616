"""Metrics, thresholds, comparisons and the report of a run."""
