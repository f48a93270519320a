"""The boards that several runs share: leases, health, and which test goes where."""
