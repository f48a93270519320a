"""A target's console: its own byte stream, read from the first byte to the last."""
