"""Images decoded once, kept as ArrayRecord shards."""
