"""The agent: a small static program in the guest, and the protocol that it speaks."""
