"""Physical boards: a console, a power switch, boot stages, and a shell at the end of them."""
