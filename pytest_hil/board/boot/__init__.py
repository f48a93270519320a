"""Boot stages, one a file."""
