"""What an evaluation reports beyond its six figures, one module for each section."""
