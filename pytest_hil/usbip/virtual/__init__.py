"""USB devices made of Python."""
