"""Ways to run commands and move files on a target."""
