"""What a run leaves on disk: a directory for each run, and in it one for each test and target."""
