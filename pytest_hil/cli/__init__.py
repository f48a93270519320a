"""``pytest-hil``: one verb a file, each loaded only when it is asked for."""
