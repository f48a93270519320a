"""Machines that QEMU emulates."""
