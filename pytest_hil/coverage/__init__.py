"""What code the targets ran: collected per test, merged over all, reported."""
