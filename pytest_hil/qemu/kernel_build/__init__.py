"""Kernels that find bugs: small ones, built from source with the guest's drivers in them."""
