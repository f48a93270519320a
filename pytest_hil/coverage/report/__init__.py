"""Merged coverage for people and for other tools: one format a file, one source file at a time."""
