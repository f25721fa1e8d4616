"""Which image has which mask, patient and fold."""
