"""The loop, its steps, losses, optimizer and weight averaging."""
