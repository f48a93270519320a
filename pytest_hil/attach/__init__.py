"""USB devices in targets: exported over USB/IP by us, attached by the target's own kernel."""
