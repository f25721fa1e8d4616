"""Images and masks, from files to batches."""
