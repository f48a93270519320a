"""What ``pytest-hil doctor`` looks at: a function a thing, which may be broken in any way."""
