"""Ways to a board's console, one a file."""
