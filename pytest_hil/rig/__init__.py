"""Emulated boards that stand in for physical ones: the same consoles, the same power switch."""
