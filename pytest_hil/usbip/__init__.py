"""USB/IP, both ends: exporting devices that are Python objects or real ones, and importing any."""
