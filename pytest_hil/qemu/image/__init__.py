"""Guest images: what a machine boots.

:func:`resolve` turns an image's description (:mod:`pytest_hil.config`) into an :class:`Image`,
building or fetching what is missing into the cache.
"""

from __future__ import annotations

from pytest_hil.qemu.image.manifest import Image
from pytest_hil.qemu.image.resolve import resolve

__all__ = ["Image", "resolve"]
