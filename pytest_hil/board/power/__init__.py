"""Power switches, one driver a file."""
