"""Several trainings by one command: stages, folds, ablations."""
